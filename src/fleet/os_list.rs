//! The list of systems that can be downloaded: fetched by a thread of its own when somebody asks for it, and kept for a while.

use std::io::Read;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Fleet;
use crate::clock::Moment;
use crate::incoming::Cancel;
use crate::incoming::download::Download;
use crate::incoming::os_list::{self, ListError, OsList};
use crate::incoming::tool::{NoTool, Tool};
use crate::incoming::url::Url;

/// How long a list is good for.
const KEPT: Duration = Duration::from_secs(3600);
/// A list that could not be had is tried again after so long.
const RETRY: Duration = Duration::from_secs(10);
/// A list that is not here after so long does not come.
const PATIENCE: Duration = Duration::from_secs(300);
/// Parts that a list may have elsewhere.
const MAX_PARTS: usize = 16;

/// How far a list is.
#[derive(Debug, Clone, Default)]
pub enum Fetched {
    /// On its way.
    #[default]
    Loading,
    /// Here.
    Ready(Arc<OsList>),
    /// Not to be had, and why.
    Failed(String),
}

/// The list that was asked for last.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    url: Option<Url>,
    begun: Moment,
    /// Ends the thread that fetches it.
    cancel: Cancel,
    fetched: Arc<Mutex<Fetched>>,
}

impl Catalogue {
    fn fetched(&self) -> Fetched {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends what takes too long.
    fn give_up(&mut self, now: Moment) {
        if self.url.is_none() || !matches!(self.fetched(), Fetched::Loading) || now.since(self.begun) < PATIENCE {
            return;
        }
        self.cancel.store(true, Ordering::Relaxed);
        let why = format!("the server did not send it within {} minutes", PATIENCE.as_secs() / 60);
        // What its thread says is not wanted any more.
        self.fetched = Arc::new(Mutex::new(Fetched::Failed(why)));
        self.begun = now;
    }
}

impl Fleet {
    /// The list at `url`, as far as it is here; it is fetched if it is not.
    ///
    /// # Errors
    /// When nothing here can download.
    pub fn os_list(&mut self, url: Url) -> Result<Fetched, NoTool> {
        let now = self.clock.now();
        self.catalogue.give_up(now);
        let catalogue = &self.catalogue;
        let fetched = catalogue.fetched();
        let age = now.since(catalogue.begun);
        let good = match fetched {
            Fetched::Loading => true,
            Fetched::Ready(_) => age < KEPT,
            Fetched::Failed(_) => age < RETRY,
        };
        if good && catalogue.url.as_ref() == Some(&url) {
            return Ok(fetched);
        }
        let tool = Tool::find()?;
        let result: Arc<Mutex<Fetched>> = Arc::default();
        // Nobody waits for the one before any more.
        self.catalogue.cancel.store(true, Ordering::Relaxed);
        let cancel = Cancel::default();
        self.catalogue =
            Catalogue { url: Some(url.clone()), begun: now, cancel: cancel.clone(), fetched: result.clone() };
        let told = result.clone();
        let tell = move |fetched| *told.lock().unwrap_or_else(PoisonError::into_inner) = fetched;
        let begun = std::thread::Builder::new().name("os-list".to_owned()).spawn(move || {
            tell(fetch(&tool, &url, &cancel).map_or_else(Fetched::Failed, |list| Fetched::Ready(Arc::new(list))));
        });
        if let Err(error) = begun {
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Fetched::Failed(error.to_string());
        }
        Ok(Fetched::Loading)
    }
}

fn fetch(tool: &Tool, url: &Url, cancel: &Cancel) -> Result<OsList, String> {
    let mut list = one(tool, url, &[], cancel)?;
    for (groups, address) in std::mem::take(&mut list.parts).into_iter().take(MAX_PARTS) {
        // A part that is not there is not missed: the official list has some that come and go.
        match one(tool, &address, &groups, cancel) {
            Ok(part) if list.systems.len() + part.systems.len() > os_list::MAX_SYSTEMS => {
                log::info!("a part of the list of systems: {address}: left out, there are too many systems already");
            }
            Ok(part) => list.systems.extend(part.systems),
            Err(why) => log::info!("a part of the list of systems: {address}: {why}"),
        }
    }
    Ok(list)
}

fn one(tool: &Tool, url: &Url, groups: &[String], cancel: &Cancel) -> Result<OsList, String> {
    let most = os_list::MAX_BYTES as u64;
    let mut bytes = Vec::new();
    let download = Download::new(tool.clone(), url.clone(), None, cancel.clone());
    download.take(most + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    os_list::parse(&bytes, groups).map_err(|error: ListError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_never_comes_has_failed() {
        let url = Url::parse("http://host/list.json").ok();
        let mut catalogue = Catalogue { url, ..Catalogue::default() };
        let (cancel, begun) = (catalogue.cancel.clone(), catalogue.begun);
        catalogue.give_up(begun.plus(PATIENCE - Duration::from_secs(1)));
        assert!(matches!(catalogue.fetched(), Fetched::Loading) && !cancel.load(Ordering::Relaxed));
        catalogue.give_up(begun.plus(PATIENCE));
        assert!(matches!(catalogue.fetched(), Fetched::Failed(_)) && cancel.load(Ordering::Relaxed));
    }
}
