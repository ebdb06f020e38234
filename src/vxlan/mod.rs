//! VXLAN tunnels between nodes: what they cost in octets, and what their ports are called.
