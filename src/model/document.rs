//! The document as written: every value still a text with its place, nothing looked up, nothing believed.
//!
//! Leaves are texts, not numbers or addresses, so that a bad one is reported beside all the others and in our own
//! words; only the document's shape is left to the YAML reader.

use core::fmt;
use core::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// A text and its place.
pub(super) type Text = Spanned<String>;

/// Octets of YAML taken at most.
pub(super) const MAX_OCTETS: usize = 32 << 20;
/// YAML nodes (scalars, sequences, mappings) taken at most.
const MAX_NODES: usize = 1_000_000;
/// Levels of nesting taken at most; a topology has six.
const MAX_DEPTH: usize = 16;
/// Nodes that aliases may add at most: a topology has little to repeat.
const MAX_REPLAYED: usize = 20_000;

/// A mapping in the order written.
#[derive(Debug)]
pub(super) struct Entries<T>(pub(super) Vec<(Text, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Entries<T>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a mapping from names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Reader(PhantomData))
    }
}

/// The whole document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) version: Text,
    #[serde(default)]
    pub(super) underlay: UnderlayDoc,
    #[serde(default)]
    pub(super) nodes: Entries<Option<NodeDoc>>,
    #[serde(default)]
    pub(super) networks: Entries<NetworkDoc>,
    #[serde(default)]
    pub(super) routers: Entries<RouterDoc>,
    #[serde(default)]
    pub(super) vms: Entries<VmDoc>,
}

/// What carries the tunnels.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnderlayDoc {
    pub(super) cidr: Option<Text>,
    pub(super) mtu: Option<Text>,
    pub(super) vxlan_port: Option<Text>,
}

/// A node.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeDoc {
    pub(super) address: Option<Text>,
    pub(super) host_mac: Option<Text>,
    pub(super) bridge_mappings: Option<Entries<Text>>,
}

/// A network.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkDoc {
    pub(super) id: Option<Text>,
    #[serde(rename = "type")]
    pub(super) kind: Option<Text>,
    pub(super) vni: Option<Text>,
    pub(super) physical_network: Option<Text>,
    pub(super) vlan: Option<Text>,
    pub(super) mtu: Option<Text>,
    pub(super) subnets: Vec<SubnetDoc>,
}

/// A subnet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubnetDoc {
    pub(super) cidr: Text,
    pub(super) gateway: Option<Text>,
    pub(super) advertise: Option<Text>,
}

/// A router.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouterDoc {
    pub(super) id: Option<Text>,
    pub(super) distributed: Option<Text>,
    pub(super) node: Option<Text>,
    #[serde(default)]
    pub(super) interfaces: Vec<InterfaceDoc>,
}

/// A router's interface, written as a mapping or as a network's name alone.
#[derive(Debug)]
pub(super) struct InterfaceDoc {
    pub(super) network: Text,
    pub(super) mac: Option<Text>,
    pub(super) ips: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InterfaceMapping {
    network: Text,
    mac: Option<Text>,
    #[serde(default)]
    ips: Vec<Text>,
}

impl<'de> Deserialize<'de> for InterfaceDoc {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        enum Either {
            Name(String),
            Mapping(InterfaceMapping),
        }
        impl<'de> Deserialize<'de> for Either {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(EitherReader)
            }
        }
        struct EitherReader;
        impl<'de> Visitor<'de> for EitherReader {
            type Value = Either;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a network's name or a mapping with the key `network`")
            }

            fn visit_str<E>(self, name: &str) -> Result<Either, E> {
                Ok(Either::Name(name.to_owned()))
            }

            // A name of digits alone is a legal name.
            fn visit_u64<E>(self, name: u64) -> Result<Either, E> {
                Ok(Either::Name(name.to_string()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Either, A::Error> {
                InterfaceMapping::deserialize(MapAccessDeserializer::new(map)).map(Either::Mapping)
            }
        }
        let Spanned { value, referenced, defined } = Spanned::<Either>::deserialize(deserializer)?;
        Ok(match value {
            Either::Name(name) => Self { network: Spanned::new(name, referenced, defined), mac: None, ips: Vec::new() },
            Either::Mapping(InterfaceMapping { network, mac, ips }) => Self { network, mac, ips },
        })
    }
}

/// A virtual machine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VmDoc {
    pub(super) node: Text,
    pub(super) network: Text,
    pub(super) ip: Option<Text>,
    #[serde(default)]
    pub(super) ips: Vec<Text>,
    pub(super) mac: Option<Text>,
    pub(super) id: Option<Text>,
    pub(super) device: Option<Text>,
    pub(super) port_security: Option<Text>,
    #[serde(default)]
    pub(super) allowed_address_pairs: Vec<PairDoc>,
}

/// Addresses a machine may speak as besides its own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PairDoc {
    pub(super) ip: Text,
    pub(super) mac: Option<Text>,
}

/// Where a shape is wrong, and how.
pub(super) struct BadShape {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) what: String,
    pub(super) remedy: &'static str,
}

/// Reads a document's shape, within bounds that stop alias bombs and deep nesting.
pub(super) fn read(text: &str) -> Result<Document, Box<BadShape>> {
    if text.len() > MAX_OCTETS {
        let what = format!("the document is {} octets long: at most {MAX_OCTETS} are read", text.len());
        return Err(Box::new(BadShape { line: 1, column: 1, what, remedy: SPLIT }));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_depth: MAX_DEPTH,
            max_documents: 1,
            max_aliases: MAX_REPLAYED,
            max_anchors: MAX_REPLAYED,
            // One anchor for the defaults of many machines is good style; what aliases add is bounded below.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED,
            max_replay_stack_depth: 8,
        },
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| Box::new(bad_shape(&error, text)))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the reader's errors are its own: only aliases are looked into")]
fn bad_shape(error: &serde_saphyr::Error, text: &str) -> BadShape {
    use serde_saphyr::Error;
    let inner = error.without_snippet();
    let place = inner.location().filter(|place| *place != Location::UNKNOWN);
    // The end of the text is where something is missing when the reader names no place.
    let end = u64::try_from(text.lines().count().max(1)).unwrap_or(u64::MAX);
    let (line, column) = place.map_or((end, 1), |place| (place.line().max(1), place.column().max(1)));
    let (what, remedy) = shape_words(inner).unwrap_or_else(|| match inner {
        Error::AliasError { error, .. } => shape_words(error).unwrap_or_else(|| (plain(error), REWRITE)),
        other => (plain(other), REWRITE),
    });
    BadShape { line, column, what, remedy }
}

const SPLIT: &str = "split it into several topologies";
const REWRITE: &str = "write it as the examples in examples/topologies do; `{}` stands for an empty mapping";

/// Our words for the mistakes in shape that people make.
#[expect(clippy::wildcard_enum_match_arm, reason = "the reader's errors are its own: the rest keep its words")]
fn shape_words(error: &serde_saphyr::Error) -> Option<(String, &'static str)> {
    use serde_saphyr::Error;
    use serde_saphyr::budget::BudgetBreach;
    Some(match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            let known = expected.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            (
                format!("unknown key `{}`: known here are {known}", show(field)),
                "correct the key's spelling or remove it",
            )
        }
        Error::SerdeMissingField { field, .. } => (format!("the key `{field}` is missing"), "add it"),
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().map_or_else(String::new, |key| format!(" `{}`", show(key)));
            (format!("the key{key} is given twice in one mapping"), "rename one of the two or remove it")
        }
        Error::NullIntoString { .. } => {
            ("a value is missing: there is nothing after the colon".to_owned(), "write the value or remove the key")
        }
        Error::Unexpected { expected, .. } => (format!("there should be {} here", shape_name(expected)), REWRITE),
        Error::SerdeInvalidType { unexpected, expected, .. }
        | Error::SerdeInvalidValue { unexpected, expected, .. } => {
            (format!("there should be {} here, not {}", show(expected), show(unexpected)), REWRITE)
        }
        Error::Eof { .. } => ("the document ends where something is still to come".to_owned(), REWRITE),
        Error::UnknownAnchor { .. } => (
            "this alias refers to no anchor above it".to_owned(),
            "write the value itself, or `&name` where it is first written",
        ),
        Error::Budget { breach: BudgetBreach::Documents { .. }, .. } | Error::MultipleDocuments { .. } => {
            ("a second YAML document begins here".to_owned(), "keep one topology a file")
        }
        Error::Budget { .. } => {
            (format!("the document is too large: at most {MAX_NODES} values, {MAX_DEPTH} levels deep, are read"), SPLIT)
        }
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => (
            format!("aliases repeat too much: at most {MAX_REPLAYED} values"),
            "write fewer aliases, or the values themselves",
        ),
        _ => return None,
    })
}

/// A node's kind in our words, from the reader's.
fn shape_name(expected: &str) -> &str {
    match expected {
        "mapping start" => "a mapping",
        "sequence start" => "a list",
        "string scalar" => "a plain value",
        other => other,
    }
}

fn plain(error: &serde_saphyr::Error) -> String {
    let text = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
    let line = text.lines().next().unwrap_or("the document cannot be read as YAML");
    // The place is told apart.
    show(line.rsplit_once(" at line ").map_or(line, |(words, _)| words))
}

/// A text as a message may show it: no control characters, not endless.
pub(super) fn show(text: &str) -> String {
    const MOST: usize = 200;
    let mut shown = String::new();
    for symbol in text.chars().take(MOST) {
        if matches!(symbol, '"' | '\'' | '\\') {
            shown.push(symbol);
        } else {
            shown.extend(symbol.escape_debug());
        }
    }
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}
