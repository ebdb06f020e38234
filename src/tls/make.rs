//! Making an authority, and certificates signed by it.

use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::read::key;
use super::{Identity, TlsError, authority_files};

/// How long the authority's own certificate holds, in years.
const AUTHORITY_YEARS: i32 = 20;
/// How long the others hold, in years; `dvr certs` makes them anew.
const YEARS: i32 = 2;
/// The longest name, that of a DNS label (RFC 1035 §2.3.4).
const NAME_MAX: usize = 63;

/// Files that were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Makes an authority in `dir`, and the controllers' certificate.
///
/// # Errors
/// [`TlsError::Exists`] if there is one; [`TlsError::File`] if it cannot be written.
pub fn init(dir: &Path) -> Result<[Made; 2], TlsError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| TlsError::File {
        what: "make the directory",
        path: dir.to_path_buf(),
        source,
    })?;
    let (certificate, key) = authority_files(dir);
    if let Some(path) = [&certificate, &key].into_iter().find(|path| path.exists()) {
        return Err(TlsError::Exists { path: path.clone() });
    }
    let make = |error: rcgen::Error| TlsError::Make { name: "the authority".to_owned(), why: error.to_string() };
    let pair = KeyPair::generate().map_err(make)?;
    let signed = authority()?.self_signed(&pair).map_err(make)?;
    write(&key, &pair.serialize_pem(), 0o600)?;
    write(&certificate, &signed.pem(), 0o644)?;
    Ok([Made { certificate, key }, issue(dir, &Identity::Controller)?])
}

/// Makes a certificate signed by the authority in `dir`, beside it; one of the same name is replaced.
///
/// # Errors
/// [`TlsError::Missing`] without an authority; [`TlsError::Name`] for a name that cannot be.
pub fn issue(dir: &Path, identity: &Identity) -> Result<Made, TlsError> {
    let name = identity.name();
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let whose = match identity {
        Identity::Controller => &name,
        Identity::Node(whose) | Identity::Client(whose) => whose,
    };
    let (first, last) = (whose.chars().next(), whose.chars().last());
    if whose.len() > NAME_MAX
        || !whose.chars().all(legal)
        || [first, last].iter().any(|c| matches!(c, None | Some('.')))
    {
        return Err(TlsError::Name(whose.clone()));
    }
    let make = |error: rcgen::Error| TlsError::Make { name: name.clone(), why: error.to_string() };
    let (_, path) = authority_files(dir);
    let remedy = "`dvr certs init` makes an authority; certificates are made where its key is";
    let signer = KeyPair::from_pem(&key(&path, remedy)?).map_err(|error| TlsError::Bad {
        path: path.clone(),
        what: "private key",
        why: error.to_string(),
    })?;
    let signer = Issuer::new(authority()?, signer);
    let mut params = dated(YEARS, [name.clone()].to_vec()).map_err(make)?;
    params.distinguished_name = named(&name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match identity {
        Identity::Controller => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Identity::Node(_) | Identity::Client(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.use_authority_key_identifier_extension = true;
    let pair = KeyPair::generate().map_err(make)?;
    let signed = params.signed_by(&pair, &signer).map_err(make)?;
    let (certificate, key) = identity.files(dir);
    write(&key, &pair.serialize_pem(), 0o600)?;
    write(&certificate, &signed.pem(), 0o644)?;
    Ok(Made { certificate, key })
}

/// What the authority says of itself: the same every time, so that its key alone is enough to sign.
fn authority() -> Result<CertificateParams, TlsError> {
    let make = |error: rcgen::Error| TlsError::Make { name: "the authority".to_owned(), why: error.to_string() };
    let mut params = dated(AUTHORITY_YEARS, Vec::new()).map_err(make)?;
    params.distinguished_name = named("dvr certificate authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A certificate that holds from yesterday, for clocks that are late, for so many years.
fn dated(years: i32, names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    let (year, month, day) = date(seconds_since_1970() / 86_400 - 1);
    params.not_before = rcgen::date_time_ymd(year, month, day);
    // The 29th of February has no anniversary every year.
    params.not_after = rcgen::date_time_ymd(year + years, month, day.min(28));
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut whole = DistinguishedName::new();
    whole.push(DnType::OrganizationName, "dvr");
    whole.push(DnType::CommonName, name);
    whole
}

/// The time of day: what certificates go by, and nothing else of this program.
#[expect(clippy::disallowed_methods, reason = "a certificate holds from one day to another")]
pub(super) fn seconds_since_1970() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The Gregorian date, so many days after the first of January 1970: years are counted from March, so that the leap day
/// is a year's last.
pub(super) fn date(days: i64) -> (i32, u8, u8) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (i32::try_from(year).unwrap_or(1970), u8::try_from(month).unwrap_or(1), u8::try_from(day).unwrap_or(1))
}

/// Writes a file whole or not at all, under its permissions from the first octet on.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let fresh = path.with_extension("new");
    let failed = |source| TlsError::File { what: "write", path: path.to_path_buf(), source };
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(mode).open(&fresh).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&fresh, path).map_err(failed)
}
