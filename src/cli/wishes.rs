//! What a file asks for: a topology, or resources one by one.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::error::CliError;
use crate::model::{Object, Resource, Topology};
use crate::rpc::RpcError;
use crate::rpc::proto::{Edit, edit};

/// A file's wishes.
pub(super) struct Wishes {
    /// What the file is called.
    origin: String,
    pub(super) edits: Vec<Edit>,
    pub(super) objects: BTreeMap<Object, Option<(u64, u64)>>,
    /// What carries the tunnels, in JSON; empty if the file leaves that as it is.
    pub(super) underlay: Vec<u8>,
    /// Whether it is a whole topology.
    pub(super) whole: bool,
}

/// A resource as `get` prints it.
#[derive(Debug, Deserialize)]
struct Printed {
    #[serde(flatten)]
    resource: Resource,
    #[serde(default)]
    revision: Option<u64>,
    /// Told by `get`, and nothing that can be wished.
    #[serde(default)]
    #[expect(dead_code, reason = "read to be passed over")]
    live: Option<IgnoredAny>,
    /// As `live`.
    #[serde(default)]
    #[expect(dead_code, reason = "read to be passed over")]
    health: Option<IgnoredAny>,
}

/// Values of a list of resources read at most: a hundred thousand ports, as `get` prints them, are half of that.
const VALUES_MAX: usize = 5_000_000;

impl Wishes {
    /// Reads and checks a file; `-` is standard input.
    ///
    /// # Errors
    /// What is wrong with it, with the place.
    pub(super) fn read(path: &Path) -> Result<Self, CliError> {
        let failed = |source| CliError::Read { path: path.to_path_buf(), source };
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(failed)?;
            return Self::of("standard input", &text);
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Self::of(&path.display().to_string(), &text)
    }

    fn of(origin: &str, text: &str) -> Result<Self, CliError> {
        if is_list(text) { Self::of_resources(origin, text) } else { Self::of_topology(origin, text) }
    }

    fn of_topology(origin: &str, text: &str) -> Result<Self, CliError> {
        let (underlay, wishes) =
            Topology::wishes(text, origin).map_err(|error| CliError::Refused(error.to_string()))?;
        let underlay = underlay.as_ref().map(json).transpose()?.unwrap_or_default();
        let mut all =
            Self { origin: origin.to_owned(), edits: Vec::new(), objects: BTreeMap::new(), underlay, whole: true };
        for wish in wishes {
            all.objects.insert(wish.resource.object(), Some((wish.line, wish.column)));
            all.edits.push(put(&wish.resource, None)?);
        }
        Ok(all)
    }

    fn of_resources(origin: &str, text: &str) -> Result<Self, CliError> {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! { max_nodes: VALUES_MAX, max_events: 2 * VALUES_MAX, max_documents: 1 },
            strict_booleans: true,
            with_snippet: false,
        };
        let read: Value = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            CliError::Refused(format!(
                "{origin}: neither a topology nor resources as `dvr get -o yaml` prints them: {error}"
            ))
        })?;
        let read = if let Value::Array(all) = read { all } else { vec![read] };
        let underlay = Vec::new();
        let mut all =
            Self { origin: origin.to_owned(), edits: Vec::new(), objects: BTreeMap::new(), underlay, whole: false };
        for (number, value) in (1..).zip(read) {
            let called = called(number, &value);
            let Printed { resource, revision, live: _, health: _ } = serde_json::from_value(value)
                .map_err(|error| CliError::Refused(format!("{origin}: {called}: {error}")))?;
            all.edits.push(put(&resource, revision)?);
            all.objects.insert(resource.object(), None);
        }
        Ok(all)
    }

    /// A failure with what was refused in it, each problem with its place in the file where it has one.
    pub(super) fn explain(&self, error: CliError) -> CliError {
        let CliError::Controller(RpcError::Refused(refused)) = &error else { return error };
        if refused.problems.is_empty() {
            return error;
        }
        let mut text = refused.message.clone();
        for problem in &refused.problems {
            let place = problem.name.as_ref().and_then(|name| {
                let object = Object::new(name.kind.parse().ok()?, name.name.clone());
                self.objects.get(&object).copied().flatten()
            });
            match place {
                Some((line, column)) => text.push_str(&format!("\n{}:{line}:{column}: {problem}", self.origin)),
                None => text.push_str(&format!("\n{}: {problem}", self.origin)),
            }
        }
        CliError::Refused(text)
    }
}

/// What a resource of a list is called in messages: what it says of itself, as far as it does.
fn called(number: usize, value: &Value) -> String {
    let text = |key| value.get(key).and_then(Value::as_str);
    match (text("kind"), text("name")) {
        (Some(kind), Some(name)) => format!("{kind} `{name}`"),
        (kind, _) => format!("{} {number} of the list", kind.unwrap_or("resource")),
    }
}

/// Whether a text holds resources, and not a topology: these are a list, or begin with a kind.
fn is_list(text: &str) -> bool {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with(['#', '%']));
    let mut lines = lines.skip_while(|line| *line == "---");
    match lines.next() {
        Some(first) if first.starts_with(['-', '[']) => true,
        Some(first) if first.starts_with('{') => {
            serde_json::from_str::<Value>(text).is_ok_and(|value| value.get("kind").is_some())
        }
        Some(_) => text.lines().any(|line| line.starts_with("kind:")),
        None => false,
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, CliError> {
    serde_json::to_vec(value).map_err(|error| CliError::Encode { form: "JSON", why: error.to_string() })
}

fn put(resource: &Resource, revision: Option<u64>) -> Result<Edit, CliError> {
    Ok(Edit { what: Some(edit::What::Put(json(resource)?)), revision })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topology_and_resources_are_told_apart() {
        for (text, objects) in [
            (crate::model::EXAMPLE, 9),
            ("- kind: node\n  name: n1\n  revision: 7\n  live: true\n  health: {told: 7, applied: 7}\n", 1),
            ("# a node\nkind: node\nname: n1\n", 1),
            ("{\"kind\": \"port\", \"name\": \"p\", \"network\": \"a\"}", 1),
            ("[]", 0),
        ] {
            let wishes = Wishes::of("test", text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(wishes.objects.len(), objects, "{text}");
            assert_eq!(wishes.whole, objects == 9);
        }
        let wishes = Wishes::of("test", "- {kind: node, name: n1, revision: 7}\n").expect("it is right");
        assert_eq!(wishes.edits[0].revision, Some(7));
    }

    #[test]
    fn what_is_neither_is_told_with_its_place() {
        for (text, words) in [
            ("version: 1\nnodes: {n: {adress: x}}\n", &["test:2:"][..]),
            ("- kind: nod\n  name: x\n", &["test: nod `x`: unknown variant `nod`", "`node`"]),
            ("- {kind: node, name: n1}\n- {kind: port, name: p}\n", &["test: port `p`: missing field `network`"]),
            ("kind: port\nname: p\nnetwork: a\nnod: n1\n", &["test: port `p`: unknown field `nod`", "`node`"]),
            ("- {kind: port, name: p, network: a, mac: x}\n", &["test: port `p`: ", "MAC"]),
            ("- {kind: port}\n", &["test: port 1 of the list: missing field `name`"]),
            ("- kind: [\n", &["test: neither"]),
        ] {
            let error = Wishes::of("test", text).err().expect("it is refused").to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }

    /// Input: more resources than a reader of YAML takes unless it is told to. Output: all of them.
    #[test]
    fn what_get_prints_is_read_however_much_it_is() {
        let port = |number: usize| {
            let ip = format!("10.{}.{}.{}", 1 + number / 65_536, number / 256 % 256, number % 256);
            let text = format!(r#"{{"kind":"port","name":"p{number}","network":"a","node":"n1","ips":["{ip}"]}}"#);
            serde_json::from_str::<Resource>(&text).expect("a resource")
        };
        let all: Vec<Resource> = (0..20_000).map(port).collect();
        let text = serde_saphyr::to_string(&all).expect("it is printed");
        let wishes = Wishes::of("test", &text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(wishes.edits.len(), all.len());
    }
}
