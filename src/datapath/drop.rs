//! Why a frame went nowhere: one set of reasons for every view, the engine's and the ports'.

/// Makes the reasons from one table: variant, name in every listing, and what it means in a line.
macro_rules! reasons {
    ($($variant:ident, $name:literal, $meaning:literal;)*) => {
        /// A reason by which a frame is dropped, or what was to become of it cut short.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $meaning] $variant,)*
        }

        impl DropReason {
            /// Every reason: first the engine's, then the ports'.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// Its name in every listing.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What it means, in a line.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => $meaning,)*
                }
            }
        }
    };
}

reasons! {
    UnknownPort, "unknown-port", "it came in by a port that belongs to no bridge";
    TableMiss, "table-miss", "no flow of the table it came to last matched";
    NoOutput, "no-output", "flows matched, and sent it nowhere";
    TooDeep, "resubmit-too-deep", "resubmit, goto_table and patch ports nested more than 64 deep";
    TooManyLookups, "resubmit-too-many", "more than 4,096 lookups for one frame";
    TooManyActions, "actions-too-many", "more than 65,536 datapath actions for one frame";
    VlanRefused, "vlan-refused", "NORMAL: its VLAN is not one of its port's";
    Reserved, "reserved-address", "NORMAL: bridges keep its destination to themselves (IEEE 802.1Q-2018 8.6.3)";
    Hairpin, "hairpin", "NORMAL: its destination is where it came from";
    NoPeer, "patch-without-peer", "a patch port without its other end";
    TtlExpired, "ttl-expired", "its time to live would become zero";
    NotEcnCapable, "not-ecn-capable", "its tunnel says \"congestion experienced\", and it is not ECN-capable (RFC 6040 4.2)";
    NoRoom, "no-headroom", "no room in front of it for another tag";
    LearnLimit, "learn-limit", "no room for a flow to be learned; the frame goes on, counted once a table walk";
    FdbFull, "fdb-full", "the table of stations was full, and one was forgotten for another; the frame goes on";
    UpcallLimit, "upcall-limit", "nothing was known of it, and its port or its tunnel's endpoint brings more new flows than are looked up: 4,000 or 16,000 a second and worker, and more for a short while";
    Truncated, "port-truncated", "it has no whole Ethernet header, or was cut short by its buffer";
    BadOffload, "port-bad-offload", "the kernel's or guest's word on checksum and segments contradicts the frame, or the kernel has none: for UDP super-frames read from packet sockets, before Linux 6.2";
    BadTunnel, "tunnel-bad-header", "a VXLAN datagram without header, I flag or legal VNI, or with reserved bits; a GRE header that RFC 2784 and RFC 2890 do not have";
    Fragmented, "tunnel-fragmented", "a tunnelled packet that came in fragments: an MTU on the way is smaller than its sender thinks (RFC 7348 4.3)";
    TunnelChecksum, "tunnel-bad-checksum", "a GRE packet whose own checksum is wrong";
    Keyless, "tunnel-keyless", "a GRE packet without a key: it belongs to no network";
    TunnelUnfinished, "tunnel-unfinished-checksum", "a tunnel's frame whose checksum was only begun, as a kernel vxlan device over a veth leaves it: finished here, and sent on";
    Uncuttable, "port-uncuttable", "the super-frame cannot be cut into what its link takes";
    Overrun, "port-overrun", "more came than was read: the socket's buffer, or the TAP's queue, was full before it";
    Full, "port-full", "the queue of the link that it leaves by, or the socket's buffer, is full";
    TooBig, "port-too-big", "larger than its link, or the path to the tunnel's end, takes without fragmenting";
    TooBigUntold, "port-too-big-untold", "as port-too-big, and nobody was told: it is no IP, may not be answered, or too many were";
    Down, "port-down", "the interface is down";
    Unreachable, "tunnel-unreachable", "no route to the tunnel's end, or it is forbidden";
    NoTunnel, "tunnel-no-key", "the tunnel key is no VNI, or the endpoint's address is of another family";
    Gone, "port-gone", "the interface is gone";
    NoPort, "port-removed", "the port was removed while the frame was on its way";
    Unsaid, "notice-lost", "a flow had something to say of it, and too much waited to be heard: the oldest was forgotten; the frame goes on";
    Unanswered, "unanswered", "DHCP or a router solicitation, but no question that gets an answer: another server's, a release, or malformed";
    Refused, "port-refused", "the kernel refused it for another reason";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_in_kebab_case() {
        let names: std::collections::BTreeSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        for name in names {
            let words = || name.split('-');
            assert!(
                words().all(|word| !word.is_empty() && word.bytes().all(|octet| octet.is_ascii_lowercase())),
                "{name}"
            );
        }
    }

    #[test]
    fn each_has_a_slot_of_its_own_among_counters() {
        for (slot, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, slot, "{reason:?}");
        }
    }
}
