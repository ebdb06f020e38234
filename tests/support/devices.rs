//! What kernel devices there are to test with.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::process::Command;

use serde_json::Value;

/// Whether the kernel makes devices of this kind, which is said where it does not; with `DVR_REQUIRE_KERNEL=1` that is a
/// failure.
pub(crate) fn has_devices(kind: &str) -> bool {
    #[expect(clippy::disallowed_methods, reason = "the program under test")]
    let output = Command::new(env!("CARGO_BIN_EXE_dvr")).args(["doctor", "-o", "json"]).output();
    let findings: Value = serde_json::from_slice(&output.expect("the program starts").stdout).expect("JSON");
    let what = format!("{kind} devices");
    let found = findings.as_array().expect("a list").iter().find(|finding| finding["what"] == what.as_str());
    let found = found.unwrap_or_else(|| panic!("doctor says nothing of {what}: {findings}"));
    let has = found["verdict"] == "ok";
    if !has {
        assert!(std::env::var_os("DVR_REQUIRE_KERNEL").is_none(), "{kind} was not tried: {found}");
        println!("{kind} was not tried: {}", found["found"]);
    }
    has
}
