//! Rule `imager`: settings that Raspberry Pi Imager left on the card for a first boot that does not happen.

use super::AdaptError;
use super::editor::{Editor, Side};

/// `firstrun.sh` is started by words of the command line which the rule `cmdline` removes, `custom.toml` is read by the
/// init script that would resize the partition (raspberrypi-sys-mods, `firstboot`).
pub(super) fn apply(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    for name in ["firstrun.sh", "custom.toml"] {
        if editor.text(Side::Boot, name)?.is_some() {
            let why = "settings made in Raspberry Pi Imager (user, password, Wi-Fi, locale …) are not applied: \
                       set them on the device; its host name and ssh keys come from this router";
            editor.note(Side::Boot, name, why.to_owned());
        }
    }
    Ok(())
}
