//! What the admin wants: the typed model of `/etc/config/piboot` and the UCI text it is written in.
//!
//! Reading never fails as a whole over one wrong value: each is reported as a [`Problem`] by section and option,
//! and the rest works on.

pub mod change;
mod edit;
mod model;
mod names;
mod place;
mod read;
mod tool;
pub mod uci;

pub use edit::{EditError, complete_identity, has_section, put_device, remove_device};
pub use model::{Config, Device, DhcpMode, Main, Problem, RootKind, Severity, UnknownPolicy};
pub use names::{NameError, check_device_id, check_hostname, check_image_name, device_id_from_hostname};
pub use place::{ChangePlaceError, LoadError, Place};
pub use read::is_ssh_key;
pub use tool::{UciError, UciTool};
