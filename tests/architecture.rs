//! The architecture, as a test: who may use whom, what the pure core may not touch, where `unsafe` lives, how large a
//! file may grow. A failure names the file, the line and the rule.

#![expect(clippy::expect_used, reason = "a test that cannot look at the sources has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use dvr::datapath::DropReason;

/// Top-level modules from the bottom up: a module may use those of earlier lines. The shell halves of kernel objects
/// may use each other's as well: an address needs its link's ifindex.
const LAYERS: &[&[&str]] = &[
    &["types"],
    &["wire", "clock"],
    &["api", "netns", "capture", "vxlan", "gre", "fastpath"],
    &["model", "datapath", "neigh", "route"],
    &["link"],
    &["bridge"],
    &["placement", "program", "plan", "control", "store", "tls", "rpc"],
    &["switch", "agent", "controller"],
    &["lab"],
    &["bench"],
    &["cli"],
];

/// Where the netlink socket stands: just below the kernel objects' shell halves.
const NETLINK_RANK: usize = 2;

/// Modules that build without the `kernel` feature, and so must not touch the world.
const PURE: &[&str] = &["types", "capture", "wire", "api", "model", "placement", "program", "fastpath"];

/// Files and directories of shell code inside modules that are pure otherwise.
const SHELL_PARTS: &[&str] =
    &["/capture/socket.rs", "/kernel.rs", "/kernel/", "/plan/monitor.rs", "/datapath/port/", "sys.rs"];

/// What the pure core may not name.
const WORLDLY: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "std::fs",
    "std::thread",
    "std::process",
    "std::os",
    "UdpSocket",
    "TcpStream",
    "UnixStream",
    "tokio",
    "nix::",
    "libc::",
    "tracing::",
    "rtnetlink",
    "println!",
    "eprintln!",
];

/// Kernel objects, each a directory of the same files.
const KERNEL_OBJECTS: &[&str] = &["netns", "link", "bridge", "neigh", "route", "vxlan", "gre"];

const MOST_LINES: usize = 640;

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("cannot list {}: {error}", dir.display())) {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    walk(&root.join("src"), &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        (path.strip_prefix(root).expect("below the root").to_owned(), text)
    };
    paths.into_iter().map(read).collect()
}

/// The lines that are code and not tests: everything up to the test module, comments left out.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end]
        .lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// `src/datapath/port/tap.rs` → `datapath`.
fn module(path: &Path) -> &str {
    let name = path.components().nth(1).and_then(|part| part.as_os_str().to_str()).expect("a file below src");
    name.strip_suffix(".rs").unwrap_or(name)
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn is_shell(path: &Path) -> bool {
    let text = path.to_str().expect("a UTF-8 path");
    SHELL_PARTS.iter().any(|part| text.contains(part))
}

fn is_root(path: &Path) -> bool {
    matches!(module(path), "lib" | "main")
}

fn report(mut broken: Vec<String>, rule: &str) {
    broken.sort();
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

#[test]
fn nothing_is_used_from_above() {
    let mut broken = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| !is_root(path)) {
        let own = module(path);
        let own_rank = if own == "netlink" { Some(NETLINK_RANK) } else { rank(own) };
        let Some(own_rank) = own_rank else {
            broken.push(format!("{}: module `{own}` has no layer: give it one in LAYERS", path.display()));
            continue;
        };
        for (line, code) in code(text) {
            for used in code.match_indices("crate::").map(|(at, _)| &code[at + 7..]) {
                let used: String = used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let allowed = match used.as_str() {
                    other if other == own => true,
                    "netlink" => is_shell(path) || rank("plan").is_some_and(|plan| own_rank > plan),
                    other if is_shell(path) && KERNEL_OBJECTS.contains(&other) => true,
                    other => rank(other).is_some_and(|used_rank| used_rank < own_rank),
                };
                if !allowed && !used.is_empty() {
                    broken.push(format!("{}:{line}: `{own}` uses `{used}`, which is not below it", path.display()));
                }
            }
        }
    }
    report(broken, "dependencies point downward only");
}

#[test]
fn the_pure_core_touches_nothing() {
    let mut broken = Vec::new();
    for (path, text) in &sources() {
        let own = module(path);
        if path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let pure = PURE.contains(&own) || KERNEL_OBJECTS.contains(&own) || matches!(own, "datapath" | "plan");
        if !pure || is_shell(path) {
            continue;
        }
        for (line, code) in code(text) {
            for word in WORLDLY.iter().filter(|word| code.contains(**word)) {
                broken.push(format!("{}:{line}: `{word}`", path.display()));
            }
        }
    }
    report(broken, "pure code takes time and octets as arguments and opens nothing");
}

#[test]
fn the_pure_core_builds_alone() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pure");
    #[expect(clippy::disallowed_methods, reason = "the question is what cargo says")]
    let output = std::process::Command::new(env!("CARGO"))
        .args(["check", "--quiet", "--lib", "--no-default-features", "--offline", "--target-dir"])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "the library does not build without `kernel`:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn features_gate_whole_modules() {
    let mut broken = Vec::new();
    for (path, text) in &sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (at, _) in lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.contains("cfg(feature") || line.contains("cfg(not(feature"))
        {
            let next =
                lines[at + 1..].iter().find(|line| !line.trim_start().starts_with("//")).copied().unwrap_or_default();
            if !next.contains("mod ") && !next.trim_start().starts_with("pub use ") {
                broken.push(format!("{}:{}: gates `{}`", path.display(), at + 1, next.trim()));
            }
        }
    }
    report(broken, "a feature gates modules at their `mod` lines, never code inside functions");
}

#[test]
fn unsafe_has_its_own_files() {
    let mut broken = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| !path.to_str().is_some_and(|text| text.ends_with("sys.rs")))
    {
        for (line, code) in code(text) {
            if code.contains("unsafe {")
                || code.contains("unsafe fn")
                || code.contains("unsafe impl")
                || code.contains("unsafe extern")
            {
                broken.push(format!("{}:{line}: {}", path.display(), code.trim()));
            }
        }
    }
    report(broken, "`unsafe` lives in files named *sys.rs");
}

#[test]
fn kernel_objects_look_alike() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut broken = Vec::new();
    for object in KERNEL_OBJECTS {
        for file in ["mod.rs", "spec.rs", "state.rs", "diff.rs"] {
            if !root.join(object).join(file).is_file() {
                broken.push(format!("src/{object}/{file} is missing"));
            }
        }
    }
    report(broken, "each kernel object is a directory of the same files: desired, observed, difference");
}

#[test]
fn files_stay_readable() {
    let mut broken = Vec::new();
    for (path, text) in &sources() {
        let lines = text.lines().count();
        if lines > MOST_LINES {
            broken.push(format!("{}: {lines} lines", path.display()));
        }
        if !is_root(path) && !text.starts_with("//!") {
            broken.push(format!("{}: opens with no module doc", path.display()));
        }
    }
    report(broken, "a file says what it owns and stays near 600 lines");
}

/// A reason that nothing produces would be a promise; one that the README leaves out would have to be guessed.
#[test]
fn every_drop_reason_is_produced_and_documented() {
    let sources = sources();
    let produced = |variant: &str| {
        let named = format!("DropReason::{variant}");
        sources.iter().filter(|(path, _)| !path.ends_with("datapath/drop.rs") && !path.ends_with("tests.rs")).any(
            |(path, text)| {
                !path.to_string_lossy().contains("/tests/")
                    && code(text).any(|(_, line)| {
                        line.match_indices(&named).any(|(at, found)| {
                            // A longer name may begin like this one.
                            line[at + found.len()..].chars().next().is_none_or(|next| !next.is_alphanumeric())
                        })
                    })
            },
        )
    };
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("there is one");
    let mut broken = Vec::new();
    for reason in DropReason::ALL {
        if !produced(&format!("{reason:?}")) {
            broken.push(format!("{reason:?} is produced nowhere"));
        }
        let row = format!("| `{}` | {} |", reason.name(), reason.meaning());
        if !readme.contains(&row) {
            broken.push(format!("README.md lacks the row: {row}"));
        }
    }
    report(broken, "drop reasons");
}
