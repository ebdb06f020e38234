//! Certificates as files: read, looked at, and put into the two sides of a connection.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tonic::transport::{Certificate, ClientTlsConfig, ServerTlsConfig};
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, ParsedExtension, X509Certificate, X509Error};

use super::make::{date, seconds_since_1970};
use super::{CONTROLLER, Identity, TlsError, authority_files};

/// The controller's side, with the files of `dir`. A client without a certificate is let in as far as to be told that it
/// needs one.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn server_config(dir: &Path) -> Result<ServerTlsConfig, TlsError> {
    let (authority, identity) = files(dir, &Identity::Controller)?;
    Ok(ServerTlsConfig::new().identity(identity).client_ca_root(authority).client_auth_optional(true))
}

/// The other side, as the bearer of `identity`.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn client_config(dir: &Path, identity: &Identity) -> Result<ClientTlsConfig, TlsError> {
    let (authority, identity) = files(dir, identity)?;
    Ok(ClientTlsConfig::new().domain_name(CONTROLLER).ca_certificate(authority).identity(identity))
}

/// Whose certificate it is, by the names in it; the connection has verified its signature already. `None` if it is none
/// of ours.
#[must_use]
pub fn identity_of(der: &[u8]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| {
        let GeneralName::DNSName(name) = name else { return None };
        Identity::of_name(name)
    })
}

fn files(dir: &Path, identity: &Identity) -> Result<(Certificate, tonic::transport::Identity), TlsError> {
    let command = match identity {
        Identity::Controller => "`dvr certs controller` makes it where the authority is; copy it here".to_owned(),
        Identity::Node(node) => format!("`dvr certs node {node}` makes it where the authority is; copy it here"),
        Identity::Client(name) => format!("`dvr certs client {name}` makes it where the authority is; copy it here"),
    };
    let (authority, _) = authority_files(dir);
    let (certificate, key) = identity.files(dir);
    let remedy = "copy the authority's certificate here from where `dvr certs init` made it";
    let signer = self::certificate(&authority, remedy)?;
    let own = self::certificate(&certificate, &command)?;
    // Else the other side would end the connection, and say little of why.
    holds(&certificate, &own, &command)?;
    if let [Some(signed), Some(signer)] = [signer_of(&certificate, &own)?, key_id(&authority, &signer)?]
        && signed != signer
    {
        return Err(TlsError::Foreign { path: certificate, authority, remedy: command });
    }
    let key = self::key(&key, &command)?;
    Ok((Certificate::from_pem(signer), tonic::transport::Identity::from_pem(own, key)))
}

/// The text of a file that is a certificate in PEM; `remedy` says how to get one.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn certificate(path: &Path, remedy: &str) -> Result<String, TlsError> {
    let text = text(path, remedy)?;
    read(path, &text, |_| Ok(()))?;
    Ok(text)
}

/// Does something with a certificate in PEM.
fn read<T>(
    path: &Path,
    text: &str,
    look: impl FnOnce(&X509Certificate<'_>) -> Result<T, X509Error>,
) -> Result<T, TlsError> {
    let bad = |why: String| TlsError::Bad { path: path.to_path_buf(), what: "certificate in PEM", why };
    let (_, pem) = x509_parser::pem::parse_x509_pem(text.as_bytes()).map_err(|error| bad(error.to_string()))?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).map_err(|error| bad(error.to_string()))?;
    look(&certificate).map_err(|error| bad(error.to_string()))
}

/// Whether today is within a certificate's time.
fn holds(path: &Path, text: &str, remedy: &str) -> Result<(), TlsError> {
    let (from, until, valid) = read(path, text, |certificate| {
        let validity = certificate.validity();
        let now = ASN1Time::from_timestamp(seconds_since_1970())?;
        Ok((validity.not_before, validity.not_after, validity.is_valid_at(now)))
    })?;
    if valid {
        return Ok(());
    }
    let day = |at: ASN1Time| {
        let (year, month, day) = date(at.timestamp().div_euclid(86_400));
        format!("{year:04}-{month:02}-{day:02}")
    };
    let (from, until) = (day(from), day(until));
    Err(TlsError::Ended { path: path.to_path_buf(), from, until, remedy: remedy.to_owned() })
}

/// The key that a certificate says it was signed with (RFC 5280 4.2.1.1).
fn signer_of(path: &Path, text: &str) -> Result<Option<Vec<u8>>, TlsError> {
    read(path, text, |certificate| {
        Ok(certificate.extensions().iter().find_map(|extension| {
            let ParsedExtension::AuthorityKeyIdentifier(id) = extension.parsed_extension() else { return None };
            Some(id.key_identifier.as_ref()?.0.to_vec())
        }))
    })
}

/// The key that an authority's certificate says it is of (RFC 5280 4.2.1.2).
fn key_id(path: &Path, text: &str) -> Result<Option<Vec<u8>>, TlsError> {
    read(path, text, |certificate| {
        Ok(certificate.extensions().iter().find_map(|extension| {
            let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() else { return None };
            Some(id.0.to_vec())
        }))
    })
}

/// A private key's text, if nobody else may read it; `remedy` says how to get one.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn key(path: &Path, remedy: &str) -> Result<String, TlsError> {
    let text = text(path, remedy)?;
    let meta =
        fs::metadata(path).map_err(|source| TlsError::File { what: "look at", path: path.to_path_buf(), source })?;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(TlsError::Exposed { path: path.to_path_buf(), mode });
    }
    Ok(text)
}

fn text(path: &Path, remedy: &str) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|source| {
        let path = path.to_path_buf();
        if source.kind() == std::io::ErrorKind::NotFound {
            return TlsError::Missing { path, remedy: remedy.to_owned() };
        }
        TlsError::File { what: "read", path, source }
    })
}
