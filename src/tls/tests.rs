//! Certificates made, read back, and refused.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;

struct Dir(PathBuf);

impl Dir {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("dvr-tls-{test}-{}", std::process::id()));
        let _old = std::fs::remove_dir_all(&dir);
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_certificate_says_whose_it_is_and_its_key_is_nobody_elses() {
    let dir = Dir::new("whose");
    init(&dir.0).expect("an authority");
    for identity in [Identity::Controller, Identity::Node("node1".into()), Identity::Client("me".into())] {
        let made = issue(&dir.0, &identity).expect("a certificate");
        let text = std::fs::read(&made.certificate).expect("it is there");
        let (_, pem) = x509_parser::pem::parse_x509_pem(&text).expect("PEM");
        assert_eq!(identity_of(&pem.contents), Some(identity.clone()));
        let mode = std::fs::metadata(&made.key).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{identity:?}");
    }
    assert!(server_config(&dir.0).is_ok() && client_config(&dir.0, &Identity::Node("node1".into())).is_ok());
}

#[test]
fn refusals_name_the_file_and_the_way_out() {
    let dir = Dir::new("refused");
    let told = |result: Result<Made, TlsError>| result.expect_err("it is refused").to_string();
    assert!(told(issue(&dir.0, &Identity::Node("n".into()))).contains("dvr certs init"));
    init(&dir.0).expect("an authority");
    assert!(matches!(init(&dir.0), Err(TlsError::Exists { .. })), "an authority is never overwritten");
    for name in ["", "a/b", ".x", "x.", "a b", &"x".repeat(64)] {
        assert!(matches!(issue(&dir.0, &Identity::Node(name.into())), Err(TlsError::Name(_))), "{name:?} was taken");
    }
    let absent = client_config(&dir.0, &Identity::Node("n7".into())).expect_err("no such file").to_string();
    assert!(absent.contains("node-n7.crt") && absent.contains("dvr certs node n7"), "{absent}");
    let made = issue(&dir.0, &Identity::Node("n7".into())).expect("a certificate");
    std::fs::set_permissions(&made.key, std::fs::Permissions::from_mode(0o644)).expect("ours");
    assert!(matches!(client_config(&dir.0, &Identity::Node("n7".into())), Err(TlsError::Exposed { .. })));
    std::fs::write(&made.certificate, "nonsense").expect("ours");
    assert!(matches!(client_config(&dir.0, &Identity::Node("n7".into())), Err(TlsError::Bad { .. })));
}

#[test]
fn dates_are_the_calendars() {
    for (days, date) in [
        (0, (1970, 1, 1)),
        (58, (1970, 2, 28)),
        (59, (1970, 3, 1)),
        (789, (1972, 2, 29)),
        (11_016, (2000, 2, 29)),
        (20_454, (2026, 1, 1)),
    ] {
        assert_eq!(make::date(days), date, "day {days}");
    }
}

#[test]
fn names_and_identities_go_both_ways() {
    for identity in [Identity::Controller, Identity::Node("a.b".into()), Identity::Client("c".into())] {
        assert_eq!(Identity::of_name(&identity.name()), Some(identity));
    }
    for name in ["node1", ".node.dvr", "x.controller.dvr", ""] {
        assert_eq!(Identity::of_name(name), None, "{name}");
    }
}
