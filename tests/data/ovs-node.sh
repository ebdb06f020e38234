# Makes a node's namespace Open vSwitch's: the tunnel to node1 is a port of br-tun, and veth pairs join br-int to the
# machines and to the router, whose namespaces the node's agent made before it was killed. In its userspace the wire is a
# port of br-phy, and no TAP is made; by the kernel's datapath the tunnel is a device over the node's own address. Runs
# until its standard input closes.
# Arguments: `dummy` or `system`, the database's schema, the tunnels' type, br-int's flows, br-tun's, the router's
# namespace, its MACs on blue and orange, the MACs of the machines of node1.
datapath=$1
shift
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export OVS_RUNDIR=$(mktemp -d) && export OVS_LOGDIR=$OVS_RUNDIR OVS_DBDIR=$OVS_RUNDIR && cd "$OVS_RUNDIR" || exit 1
finish() { kill $switch $database 2>/dev/null; wait; cd /; rm -rf "$OVS_RUNDIR"; }
trap finish EXIT
trap 'exit 1' INT TERM HUP
exec 2>&1
set -e
ovsdb-tool create conf.db "$1"
ovsdb-server conf.db --remote=punix:$OVS_RUNDIR/db.sock --unixctl=$OVS_RUNDIR/db.ctl -vsyslog:off -vconsole:off &
database=$!
until [ -S db.sock ]; do kill -0 $database; sleep 0.02; done
# Its dummy datapath forwards between real interfaces like the other; only its bridges' own ports are no TAPs.
options='--disable-system --enable-dummy'
[ $datapath = dummy ] || options=
ovs-vswitchd unix:$OVS_RUNDIR/db.sock $options --unixctl=$OVS_RUNDIR/switch.ctl -vsyslog:off -vconsole:off --log-file=$OVS_RUNDIR/switch.log &
switch=$!
vsctl() { ovs-vsctl --db=unix:$OVS_RUNDIR/db.sock --timeout=20 "$@"; }
vsctl --no-wait init

# A machine's or the router's interface: namespace, name, MAC, address, port on br-int.
pair() {
    ip link add "$5" type veth peer name "$2" netns "$1"
    echo 1 > "/proc/sys/net/ipv6/conf/$5/disable_ipv6"
    ip link set "$5" mtu 1400 up
    ip -n "$1" link set "$2" address "$3" mtu 1400 up
    ip -n "$1" address add "$4" dev "$2"
    # A veth pair hands checksums on unfinished, which a wire would not, and OVS's userspace refuses.
    [ $datapath = system ] || nsenter --net="/run/netns/$1" ethtool -K "$2" tx off >/dev/null
}
for netns in vm-blue2 vm-orange2 "$5"; do
    for link in $(ip -n $netns -o link show type veth | cut -d: -f2 | cut -d@ -f1); do ip -n $netns link del $link; done
done
pair "$5" qr-blue "$6" 10.1.0.1/24 o-qr-blue
pair "$5" qr-orange "$7" 10.2.0.1/24 o-qr-orange
pair vm-blue2 eth0 fa:16:3e:00:00:12 10.1.0.12/24 o-blue2
pair vm-orange2 eth0 fa:16:3e:00:00:22 10.2.0.12/24 o-orange2
ip -n vm-blue2 route add default via 10.1.0.1
ip -n vm-orange2 route add default via 10.2.0.1
# Whom the router knows, as Neutron's agent has it.
ip -n "$5" neigh replace 10.1.0.11 lladdr "$8" dev qr-blue nud permanent
ip -n "$5" neigh replace 10.1.0.12 lladdr fa:16:3e:00:00:12 dev qr-blue nud permanent
ip -n "$5" neigh replace 10.2.0.11 lladdr "$9" dev qr-orange nud permanent
ip -n "$5" neigh replace 10.2.0.12 lladdr fa:16:3e:00:00:22 dev qr-orange nud permanent

port() { vsctl add-port "$@"; }
vsctl add-br br-int -- set bridge br-int datapath_type=$datapath fail-mode=secure
vsctl add-br br-tun -- set bridge br-tun datapath_type=$datapath fail-mode=secure
port br-int patch-tun -- set interface patch-tun type=patch options:peer=patch-int ofport_request=1
port br-tun patch-int -- set interface patch-int type=patch options:peer=patch-tun ofport_request=1
port br-tun tun0 -- set interface tun0 type=$2 options:remote_ip=172.31.6.1 options:in_key=flow options:out_key=flow options:df_default=true ofport_request=2
port br-int o-qr-blue tag=1 -- set interface o-qr-blue ofport_request=2
port br-int o-qr-orange tag=2 -- set interface o-qr-orange ofport_request=3
port br-int o-blue2 tag=1 -- set interface o-blue2 ofport_request=4
port br-int o-orange2 tag=2 -- set interface o-orange2 ofport_request=5

appctl() { ovs-appctl -t $OVS_RUNDIR/switch.ctl "$@"; }
flows() { ovs-ofctl "$1" unix:$OVS_RUNDIR/$2.mgmt "$3"; }
bridges='br-int br-tun'
if [ $datapath = dummy ]; then
    # The wire, under eth0's address, which node1 knows already.
    bridges="br-phy $bridges"
    wire=$(cat /sys/class/net/eth0/address)
    vsctl add-br br-phy -- set bridge br-phy datapath_type=dummy fail-mode=secure other-config:hwaddr=$wire
    port br-phy eth0 -- set interface eth0 ofport_request=1
    # The tunnel's endpoint. Nobody answers for a dummy's address but a flow.
    ip address flush dev eth0
    appctl netdev-dummy/ip4addr br-phy 172.31.6.2/24 >/dev/null
    appctl ovs/route/add 172.31.6.0/24 br-phy >/dev/null
    flows add-flow br-phy "priority=2,in_port=1,arp,arp_op=1,arp_tpa=172.31.6.2,actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],mod_dl_src:$wire,load:2->NXM_OF_ARP_OP[],move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],load:0x$(echo $wire | tr -d :)->NXM_NX_ARP_SHA[],load:0xac1f0602->NXM_OF_ARP_SPA[],in_port"
    flows add-flow br-phy "priority=1,actions=NORMAL"
fi
printf '%s' "$3" > br-int.flows && flows add-flows br-int br-int.flows
printf '%s' "$4" > br-tun.flows && flows add-flows br-tun br-tun.flows
echo ready
read -r _ || true
[ $datapath = dummy ] || appctl dpctl/show
for bridge in $bridges; do echo "flows of $bridge:"; flows dump-flows $bridge ''; done
tail -n 20 switch.log
