//! Machines that are no Raspberry Pi: they take an address and report any boot option that reached them.

use super::session::Session;
use super::{Outcome, Ready, Stop};
use crate::dhcp::discover::Speaker;

pub(super) async fn run(session: &mut Session<'_>) -> Result<Ready, Stop> {
    let lease = session.dhcp(Speaker::first(session.pi.model)).await?;
    Err(Stop::End(Outcome::NotAPi { boot_options: lease.boot_options }))
}
