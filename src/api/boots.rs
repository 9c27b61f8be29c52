//! Verbs about boots.

use super::types::*;
use super::{Api, ApiError, DEFAULT_BOOTS, MAX_BOOTS, Servers};
use crate::base64;
use crate::boot::packets;
use crate::pi;

impl<S: Servers> Api<S> {
    pub(super) fn boots(&self, request: &BootsRequest) -> Result<Boots, ApiError> {
        let mac = match request.device.as_deref() {
            None => None,
            Some(id) => match id.parse() {
                Ok(mac) => Some(mac),
                Err(_) => {
                    let device = self.configured(id)?;
                    let unknown = || ApiError::Failed(format!("the hardware address of {id} is not known yet"));
                    Some(device.mac.ok_or_else(unknown)?)
                }
            },
        };
        let limit = request.limit.unwrap_or(DEFAULT_BOOTS).min(MAX_BOOTS);
        let boots = self.fleet.boots(mac, limit).map_err(|e| ApiError::Failed(e.to_string()))?;
        Ok(Boots { boots: boots.iter().map(BootSummary::from).collect() })
    }

    pub(super) fn boot(&self, request: &BootRequest) -> Result<BootDetail, ApiError> {
        let failed = |e: crate::fleet::StoreError| ApiError::Failed(e.to_string());
        let unknown = || ApiError::NotFound(format!("there is no boot {}: 'piboot boots' lists them", request.boot));
        let boot = self.fleet.boot(request.boot).map_err(failed)?.ok_or_else(unknown)?;
        let good = self.fleet.good_boot_before(&boot).map_err(failed)?;
        Ok(BootDetail {
            age_ms: boot.age_ms(self.fleet.clock()),
            good: good.map(|good| GoodBoot { id: good.id, stages: good.stages }),
            boot,
        })
    }

    pub(super) fn boot_packets(&self, request: &BootRequest) -> Result<BootPackets, ApiError> {
        let boot = self.boot(request)?.boot.id;
        let file = self.fleet.packets(boot).map_err(|e| ApiError::Failed(e.to_string()))?;
        Ok(BootPackets { boot, packets: packets::count(&file), pcap: base64::encode(&file) })
    }
}

pub(super) fn led(request: &LedRequest) -> Result<Leds, ApiError> {
    let unknown = || ApiError::NotFound("that is no blink code of a Raspberry Pi".to_owned());
    let codes = pi::led(request.flashes).ok_or_else(unknown)?.to_vec();
    Ok(Leds { codes })
}
