//! Why a frame went nowhere: one set of reasons for every view.

/// A reason by which a frame is dropped, or what was to become of it cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// It came in by a port that belongs to no bridge.
    UnknownPort,
    /// No flow of the bridge's first table matched.
    TableMiss,
    /// Flows matched, and sent it nowhere.
    NoOutput,
    /// `resubmit`, `goto_table` and patch ports nested more than 64 deep.
    TooDeep,
    /// More than 4,096 lookups for one frame.
    TooManyLookups,
    /// More than 65,536 datapath actions for one frame.
    TooManyActions,
    /// `NORMAL`: its VLAN is not one of its port's.
    VlanRefused,
    /// `NORMAL`: its destination is one bridges keep to themselves (IEEE 802.1Q-2018 §8.6.3).
    Reserved,
    /// `NORMAL`: its destination is where it came from.
    Hairpin,
    /// A patch port without its other end.
    NoPeer,
    /// Its time to live would become zero.
    TtlExpired,
    /// Its tunnel says "congestion experienced", and it is not ECN-capable (RFC 6040 §4.2).
    NotEcnCapable,
    /// No room in front of it for another tag.
    NoRoom,
    /// A flow to be learned, for which there is no room. Counted once a table walk; the frame goes on.
    LearnLimit,
    /// The table of learned addresses was full, and one was forgotten for another. The frame goes on.
    FdbFull,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 15] = [
        Self::UnknownPort,
        Self::TableMiss,
        Self::NoOutput,
        Self::TooDeep,
        Self::TooManyLookups,
        Self::TooManyActions,
        Self::VlanRefused,
        Self::Reserved,
        Self::Hairpin,
        Self::NoPeer,
        Self::TtlExpired,
        Self::NotEcnCapable,
        Self::NoRoom,
        Self::LearnLimit,
        Self::FdbFull,
    ];

    /// Its name in every listing.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownPort => "unknown-port",
            Self::TableMiss => "table-miss",
            Self::NoOutput => "no-output",
            Self::TooDeep => "resubmit-too-deep",
            Self::TooManyLookups => "resubmit-too-many",
            Self::TooManyActions => "actions-too-many",
            Self::VlanRefused => "vlan-refused",
            Self::Reserved => "reserved-address",
            Self::Hairpin => "hairpin",
            Self::NoPeer => "patch-without-peer",
            Self::TtlExpired => "ttl-expired",
            Self::NotEcnCapable => "not-ecn-capable",
            Self::NoRoom => "no-headroom",
            Self::LearnLimit => "learn-limit",
            Self::FdbFull => "fdb-full",
        }
    }
}
