//! What `build.rs` makes of `proto/etcd.proto`, and the few conversions between its numbers and ours.

mod generated {
    #![expect(
        unreachable_pub,
        unused_qualifications,
        clippy::allow_attributes_without_reason,
        clippy::enum_variant_names,
        reason = "generated: proto/etcd.proto describes it"
    )]

    tonic::include_proto!("etcdserverpb");
}

pub(super) use self::generated::*;
use crate::store::types::{Entry, LeaseId, Revision};

/// etcd's revisions are never negative.
pub(super) fn revision(number: i64) -> Revision {
    u64::try_from(number).unwrap_or(0)
}

/// A revision beyond etcd's own is one that it will never reach.
pub(super) fn number(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// The revision of a response; every response has one.
pub(super) fn of(header: Option<&ResponseHeader>) -> Revision {
    header.map_or(0, |header| revision(header.revision))
}

/// The end of the range of keys that begin with a prefix. UTF-8 has no octet 255, so the last can always be counted up.
pub(super) fn range(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    let mut end = prefix.as_bytes().to_vec();
    match end.last_mut() {
        Some(last) => *last += 1,
        None => return (vec![0], vec![0]),
    }
    (prefix.as_bytes().to_vec(), end)
}

/// An entry; the key's octets when they are no text, which none of our keys is.
pub(super) fn entry(kv: KeyValue) -> Result<Entry, Vec<u8>> {
    let key = String::from_utf8(kv.key).map_err(std::string::FromUtf8Error::into_bytes)?;
    let lease = (kv.lease != 0).then(|| LeaseId(kv.lease.cast_unsigned()));
    Ok(Entry { key, value: kv.value, modified: revision(kv.mod_revision), lease })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_the_prefix_and_nothing_else() {
        for (prefix, within, without) in [
            (
                "/dvr/v1/",
                &["/dvr/v1/", "/dvr/v1/node/a", "/dvr/v1/\u{10ffff}"][..],
                &["/dvr/v1", "/dvr/v10", "/dvr/v2/"][..],
            ),
            ("a/", &["a/", "a/0"], &["a", "a0", "b"]),
            ("ü", &["ü", "üx"], &["u", "ý"]),
        ] {
            let (key, end) = range(prefix);
            let holds = |text: &&str| text.as_bytes() >= key.as_slice() && text.as_bytes() < end.as_slice();
            assert!(within.iter().all(holds), "{prefix}");
            assert!(!without.iter().any(holds), "{prefix}");
        }
        assert_eq!(range(""), (vec![0], vec![0]));
    }

    #[test]
    fn a_key_that_is_no_text_is_told() {
        let kv = KeyValue { key: vec![0xff, b'x'], ..KeyValue::default() };
        assert_eq!(entry(kv), Err(vec![0xff, b'x']));
    }
}
