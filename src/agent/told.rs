//! Flows told to the switch, a bridge after the other.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::{JoinError, JoinHandle};

use super::flows;
use super::switch::Switch;
use super::switch_spec;
use super::vlans::Vlans;
use crate::api::switch::Synced;
use crate::control::ControlError;
use crate::model::view::NodeView;
use crate::program::{Program, ProgramError};
use crate::types::IfName;

/// What the switch said of each bridge's flows, or why there are none to tell of.
pub(super) type Told = Result<Vec<(IfName, Result<Synced, ControlError>)>, ProgramError>;

/// Makes the flows of some bridges what the view asks for: br-int's, then the others', so nothing comes from the wire
/// before br-int knows what to do with it. Those of one are made while the switch reads those of the one before. Ends with a
/// conversation that breaks.
pub(super) fn tell(switch: &mut Switch, view: &NodeView, vlans: &Vlans, wanted: &BTreeSet<IfName>) -> Told {
    let programs = Program::each(view, vlans)?;
    let (mut begun, mut unsaid) = (Vec::new(), None);
    for (bridge, flows) in switch_spec::names(view).into_iter().zip(programs) {
        if !wanted.contains(&bridge) {
            continue;
        }
        match switch.begin_sync(&bridge, flows::lines(&flows)) {
            Ok(()) => begun.push(bridge),
            Err(error @ ControlError::TooLong { .. }) => {
                unsaid = Some((bridge, Err(error)));
                break;
            }
            // Nor will what was begun be answered.
            Err(error) => return Ok(vec![(bridge, Err(error))]),
        }
    }
    let mut told = Vec::new();
    for bridge in begun {
        let synced = switch.end_sync();
        let is_over = synced.as_ref().is_err_and(|error| error.refusal().is_none());
        told.push((bridge, synced));
        if is_over {
            return Ok(told);
        }
    }
    told.extend(unsaid);
    Ok(told)
}

/// Flows that are being told on a thread of its own, so that the kernel's part can be done meanwhile.
pub(super) struct Ahead(JoinHandle<(Switch, Told)>);

impl Ahead {
    /// Begins, in this conversation.
    pub(super) fn begin(mut switch: Switch, view: Arc<NodeView>, vlans: Vlans, wanted: BTreeSet<IfName>) -> Self {
        Self(tokio::task::spawn_blocking(move || {
            let told = tell(&mut switch, &view, &vlans, &wanted);
            (switch, told)
        }))
    }

    /// Waits for the end. Gives the conversation back.
    ///
    /// # Errors
    /// When the thread panicked, and the conversation with it.
    pub(super) async fn end(self) -> Result<(Switch, Told), JoinError> {
        self.0.await
    }
}
