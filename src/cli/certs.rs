//! `dvr certs`: makes certificates, and says where they go.

use super::controller_args::CertsCommand;
use super::error::CliError;
use super::output;
use crate::tls::{self, Identity, Made};

/// Makes what is asked for.
///
/// # Errors
/// Whatever failed.
pub(super) fn certs(command: &CertsCommand) -> Result<u8, CliError> {
    let failed = |error: tls::TlsError| CliError::Ended(error.to_string());
    let text = match command {
        CertsCommand::Init(at) => {
            let [authority, controller] = tls::init(&at.dir).map_err(failed)?;
            format!(
                "{}{}every host needs {}; keep {} to yourself: who has it can make any certificate\n",
                told("authority", &authority),
                told("controllers", &controller),
                authority.certificate.display(),
                authority.key.display()
            )
        }
        CertsCommand::Controller(at) => {
            let made = tls::issue(&at.dir, &Identity::Controller).map_err(failed)?;
            format!(
                "{}copy both to each controller's host, and start its controller anew\n",
                told("controllers", &made)
            )
        }
        CertsCommand::Node { node, at } => {
            let made = tls::issue(&at.dir, &Identity::Node(node.clone())).map_err(failed)?;
            told(&format!("node `{node}`"), &made)
        }
        CertsCommand::Client { whose, at } => {
            let made = tls::issue(&at.dir, &Identity::Client(whose.clone())).map_err(failed)?;
            told(&format!("client `{whose}`"), &made)
        }
    };
    output::print(&text)
}

fn told(whose: &str, made: &Made) -> String {
    format!("{whose}: {} and {}\n", made.certificate.display(), made.key.display())
}
