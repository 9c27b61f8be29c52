//! Changes to an enrolled device, made in the configuration the way an admin would make them.

use std::net::Ipv4Addr;

use super::at_rest::Plan;
use super::enrol::check_keys;
use super::{DeviceRecord, EnrolError, Fleet};
use crate::config::{
    self, Device, PasswordHash, Setting, Size, check_hostname, check_image_name, check_user, device_id_from_hostname,
    set_options,
};

/// What is to be another at a device; what is absent stays. An inner `None` takes away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edit {
    /// Host name; its id stays.
    pub hostname: Option<String>,
    /// The address that DHCP is always to give it.
    pub ip: Option<Option<Ipv4Addr>>,
    /// Public keys for the first user, all of them.
    pub ssh_keys: Option<Vec<String>>,
    /// Name of the first user.
    pub user: Option<Option<String>>,
    /// That user's password.
    pub password: Option<Option<PasswordHash>>,
    /// Whether nothing is served to it.
    pub disabled: Option<bool>,
    /// Its image, as long as it has no root made from another.
    pub image: Option<String>,
    /// Boots that fail one after the other until it is rolled back; 0: never.
    pub rollback_after: Option<u32>,
    /// What its files may take.
    pub quota: Option<Option<Size>>,
    /// Also what a Pi that is up does not survive.
    pub force: bool,
}

impl Fleet {
    /// Changes a device in the configuration. [`Fleet::reconcile`] then adapts its trees. Returns the device as it is now,
    /// and what people should know.
    ///
    /// # Errors
    /// Names what cannot be; nothing is changed then.
    pub fn edit(&mut self, id: &str, edit: Edit) -> Result<(Device, Vec<String>), EnrolError> {
        let old = self.config.device(id).cloned().ok_or_else(|| EnrolError::Unknown(id.to_owned()))?;
        let new = self.edited(&old, edit)?;
        let settings = settings(&new);
        self.edit_config(|text| set_options(text, id, &settings))?;
        let is_up = self.used_by_pi(&old, Plan::Off).is_some();
        let mut notes = if is_up { notes(&old, &new) } else { Vec::new() };
        let record = DeviceRecord::load(&self.layout.device(id)).ok().flatten();
        if is_up && record.is_some_and(|record| record.is_ephemeral()) {
            notes = vec![format!("{id} is up, and its root is ephemeral: all of that takes effect at its next boot")];
        }
        self.failed.remove(id);
        if let Some(device) = self.config.devices.iter_mut().find(|device| device.id == id) {
            *device = new.clone();
        }
        log::info!("{id} changed: {}", changed(&old, &new).join(", "));
        Ok((new, notes))
    }

    /// The device as it is to be.
    fn edited(&self, old: &Device, edit: Edit) -> Result<Device, EnrolError> {
        let mut new = old.clone();
        let in_use = self.used_by_pi(old, Plan::Off).filter(|_| !edit.force);
        if let Some(hostname) = edit.hostname.filter(|name| *name != old.hostname) {
            check_hostname(&hostname)?;
            let id = device_id_from_hostname(&hostname);
            let has_it = |d: &&Device| d.id != old.id && (d.id == id || d.hostname.eq_ignore_ascii_case(&hostname));
            if let Some(other) = self.config.devices.iter().find(has_it) {
                return Err(EnrolError::Taken(format!("the name {hostname}"), other.id.clone()));
            }
            new.hostname = hostname;
        }
        if let Some(ip) = edit.ip {
            if let Some(ip) = ip {
                config::check_address(ip)?;
                if self.own_addresses.contains(&ip) {
                    return Err(EnrolError::RoutersOwn(ip));
                }
                if let Some(other) = self.config.devices.iter().find(|d| d.id != old.id && d.ip == Some(ip)) {
                    return Err(EnrolError::Taken(format!("the address {ip}"), other.id.clone()));
                }
            }
            new.ip = ip;
        }
        if let Some(keys) = edit.ssh_keys {
            check_keys(&keys)?;
            new.ssh_keys = keys;
        }
        if let Some(user) = edit.user {
            user.as_deref().map_or(Ok(()), check_user)?;
            // Whoever is logged in would lose name and home.
            if let Some(why) = in_use.clone().filter(|_| user.is_some() && user != old.user) {
                return Err(EnrolError::Up(why));
            }
            new.user = user;
        }
        if let Some(password) = edit.password {
            new.password = password;
        }
        if let Some(disabled) = edit.disabled {
            if let Some(why) = in_use.filter(|_| disabled && !old.disabled) {
                return Err(EnrolError::Up(why));
            }
            new.disabled = disabled;
        }
        if let Some(boots) = edit.rollback_after {
            new.rollback_after = config::check_rollback_after(boots)?;
        }
        if let Some(quota) = edit.quota {
            new.quota = quota.filter(|size| size.0 > 0);
        }
        if let Some(image) = edit.image.filter(|image| *image != old.image) {
            check_image_name(&image)?;
            let record = DeviceRecord::load(&self.layout.device(&old.id)).ok().flatten();
            if let Some(record) = record.filter(|record| record.image != image) {
                return Err(EnrolError::HasRoot { id: old.id.clone(), from: record.image, image });
            }
            new.image = image;
        }
        Ok(new)
    }
}

fn settings(device: &Device) -> [(&'static str, Setting); 9] {
    let one = |value: Option<String>| value.map_or(Setting::Absent, Setting::One);
    [
        ("hostname", Setting::One(device.hostname.clone())),
        ("ip", one(device.ip.map(|ip| ip.to_string()))),
        ("image", Setting::One(device.image.clone())),
        ("user", one(device.user.clone())),
        ("password", one(device.password.as_ref().map(|hash| hash.as_str().to_owned()))),
        ("disabled", one(device.disabled.then(|| "1".to_owned()))),
        ("rollback_after", one(Some(device.rollback_after).filter(|boots| *boots > 0).map(|boots| boots.to_string()))),
        ("quota", one(device.quota.map(|size| size.to_string()))),
        ("ssh_key", Setting::List(device.ssh_keys.clone())),
    ]
}

/// Names of what is another now.
fn changed(old: &Device, new: &Device) -> Vec<&'static str> {
    let what = [
        ("hostname", old.hostname != new.hostname),
        ("ip", old.ip != new.ip),
        ("image", old.image != new.image),
        ("user", old.user != new.user),
        ("password", old.password != new.password),
        ("disabled", old.disabled != new.disabled),
        ("rollback_after", old.rollback_after != new.rollback_after),
        ("quota", old.quota != new.quota),
        ("ssh_key", old.ssh_keys != new.ssh_keys),
    ];
    what.into_iter().filter(|(_, is_changed)| *is_changed).map(|(name, _)| name).collect()
}

/// What a Pi that is up takes notice of only later.
fn notes(old: &Device, new: &Device) -> Vec<String> {
    let mut notes = Vec::new();
    if old.hostname != new.hostname {
        notes.push(format!("{} is up: it is called {} when it has been restarted", old.id, new.hostname));
    }
    if old.ip != new.ip {
        notes.push(format!("{} is up: it gets its other address when it has been restarted", old.id));
    }
    notes
}
