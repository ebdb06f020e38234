//! Certificates as files: read, looked at, and put into the two sides of a connection.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tonic::transport::{Certificate, ClientTlsConfig, ServerTlsConfig};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

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
        Identity::Controller => "`dvr certs init` makes it".to_owned(),
        Identity::Node(node) => format!("`dvr certs node {node}` makes it where the authority is; copy it here"),
        Identity::Client(name) => format!("`dvr certs client {name}` makes it where the authority is; copy it here"),
    };
    let (authority, _) = authority_files(dir);
    let (certificate, key) = identity.files(dir);
    let remedy = "copy the authority's certificate here from where `dvr certs init` made it";
    let authority = self::certificate(&authority, remedy)?;
    let own = self::certificate(&certificate, &command)?;
    let key = self::key(&key, &command)?;
    Ok((Certificate::from_pem(authority), tonic::transport::Identity::from_pem(own, key)))
}

/// The text of a file that is a certificate in PEM; `remedy` says how to get one.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn certificate(path: &Path, remedy: &str) -> Result<String, TlsError> {
    let text = text(path, remedy)?;
    let bad = |why: String| TlsError::Bad { path: path.to_path_buf(), what: "certificate in PEM", why };
    let (_, pem) = x509_parser::pem::parse_x509_pem(text.as_bytes()).map_err(|error| bad(error.to_string()))?;
    X509Certificate::from_der(&pem.contents).map_err(|error| bad(error.to_string()))?;
    Ok(text)
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
