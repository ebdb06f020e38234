#!/bin/sh
# Installs the binary and topology copied to /tmp and starts switch and agent as services. $1 is the node's name.
set -eu
node=$1
install -m 0755 /tmp/dvr /usr/local/bin/dvr
install -D -m 0644 /tmp/topology.yaml /etc/dvr/topology.yaml

cat >/etc/systemd/system/dvr-switch.service <<UNIT
[Unit]
Description=dvr switch
# Its tunnels are bound to the node's address.
Wants=network-online.target
After=network-online.target
[Service]
ExecStart=/usr/local/bin/dvr switch
# The agent's socket and state are in there too: a switch that stops must not take them along.
RuntimeDirectory=dvr
RuntimeDirectoryPreserve=yes
Restart=on-failure
RestartSec=1
[Install]
WantedBy=multi-user.target
UNIT

cat >/etc/systemd/system/dvr-agent.service <<UNIT
[Unit]
Description=dvr agent
After=dvr-switch.service
Wants=dvr-switch.service
[Service]
ExecStart=/usr/local/bin/dvr agent --node $node --topology /etc/dvr/topology.yaml
ExecReload=/bin/kill -HUP \$MAINPID
RuntimeDirectory=dvr
RuntimeDirectoryPreserve=yes
Restart=on-failure
RestartSec=1
[Install]
WantedBy=multi-user.target
UNIT

systemctl daemon-reload
systemctl enable dvr-switch dvr-agent
# Provisioned again, they run what was copied.
systemctl restart dvr-switch dvr-agent
