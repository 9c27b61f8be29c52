//! The verbs and what they take, for transports that tell their callers. Held against the requests by a test.

/// Type of a parameter, as far as transports tell types apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterType {
    /// Text.
    String,
    /// Whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// List of strings.
    Strings,
}

/// Parameters of a verb with their types.
pub type Parameters = &'static [(&'static str, ParameterType)];

/// Every verb of the API with its parameters.
pub const METHODS: &[(&str, Parameters)] = {
    use ParameterType::{Boolean, Integer, String, Strings};
    &[
        ("status", &[]),
        ("check", &[]),
        ("devices", &[]),
        ("device", &[("id", String)]),
        (
            "enroll",
            &[
                ("mac", String),
                ("serial", String),
                ("hostname", String),
                ("image", String),
                ("ip", String),
                ("ssh_keys", Strings),
                ("root", String),
                ("user", String),
                ("password", String),
                ("password_hash", String),
                ("quota", String),
            ],
        ),
        (
            "device_edit",
            &[
                ("id", String),
                ("hostname", String),
                ("ip", String),
                ("ssh_keys", Strings),
                ("user", String),
                ("password", String),
                ("password_hash", String),
                ("disabled", Boolean),
                ("image", String),
                ("rollback_after", Integer),
                ("quota", String),
                ("force", Boolean),
            ],
        ),
        (
            "device_switch",
            &[("id", String), ("image", String), ("keep", Boolean), ("force", Boolean), ("root", String)],
        ),
        ("device_reset", &[("id", String), ("keep", Boolean), ("force", Boolean), ("root", String)]),
        (
            "device_clone",
            &[
                ("from", String),
                ("snapshot", String),
                ("mac", String),
                ("serial", String),
                ("hostname", String),
                ("ip", String),
                ("ssh_keys", Strings),
                ("root", String),
            ],
        ),
        ("snapshot", &[("id", String), ("name", String)]),
        ("snapshots", &[("id", String)]),
        ("snapshot_remove", &[("id", String), ("snapshot", String)]),
        ("rollback", &[("id", String), ("snapshot", String), ("discard", Boolean)]),
        ("unenroll", &[("id", String), ("delete", Boolean)]),
        ("backup", &[("id", String), ("path", String), ("live", Boolean)]),
        ("export", &[("path", String), ("live", Boolean)]),
        ("import_all", &[("path", String)]),
        ("restore", &[("path", String), ("id", String), ("replace", Boolean)]),
        ("images", &[]),
        ("image_import", &[("source", String), ("name", String), ("sha256", String), ("size", Integer)]),
        ("image_remove", &[("name", String)]),
        ("os_list", &[("url", String), ("board", String)]),
        ("disks", &[]),
        ("volume_accept", &[]),
        ("jobs", &[]),
        ("job_cancel", &[("job", Integer)]),
        ("boots", &[("device", String), ("limit", Integer)]),
        ("boot", &[("boot", Integer)]),
        ("led", &[("flashes", String)]),
        ("boot_packets", &[("boot", Integer)]),
    ]
};

/// Verbs whose request is followed by bytes: for transports that are streams. A call on the bus is one message, so that it
/// has none of these.
pub const STREAMED: &[(&str, Parameters)] = {
    use ParameterType::{Boolean, Integer, String};
    &[
        ("image_upload", &[("name", String), ("size", Integer), ("file", String), ("pieces", Boolean)]),
        ("image_upload_piece", &[("job", Integer), ("offset", Integer), ("length", Integer)]),
    ]
};

/// Whether bytes follow the request of a verb.
#[must_use]
pub fn is_streamed(method: &str) -> bool {
    STREAMED.iter().any(|(name, _)| *name == method)
}

#[cfg(test)]
mod tests {
    use serde::de::{DeserializeOwned, Deserializer, Error, Visitor, value};
    use serde_json::{Map, Value, json};

    use super::super::types::*;
    use super::*;

    /// Tells which members a request has: derived code asks for them by name.
    struct Members<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Members<'_> {
        type Error = value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Error::custom("not a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            Err(Error::custom("seen enough"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn example(name: &str, kind: ParameterType) -> Value {
        match (name, kind) {
            ("mac", ParameterType::String) => json!("dc:a6:32:00:00:01"),
            ("serial", ParameterType::String) => json!("38c128c0"),
            ("root", ParameterType::String) => json!("clone"),
            ("ip", ParameterType::String) => json!("192.168.1.50"),
            ("flashes", ParameterType::String) => json!("4-3"),
            ("password_hash", ParameterType::String) => json!("$6$salt$aaaaaaaaaaaaaaaaaaaaaa"),
            (_, ParameterType::String) => json!("text"),
            (_, ParameterType::Integer) => json!(7),
            (_, ParameterType::Boolean) => json!(true),
            (_, ParameterType::Strings) => json!(["a", "b"]),
        }
    }

    #[track_caller]
    fn assert_takes<T: DeserializeOwned + std::fmt::Debug>(method: &str) {
        let (_, parameters) = METHODS.iter().chain(STREAMED).find(|(name, _)| *name == method).unwrap();
        let mut members: &[&str] = &[];
        T::deserialize(Members(&mut members)).unwrap_err();
        let names: Vec<&str> = parameters.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, members, "{method}");
        let all: Map<_, _> = parameters.iter().map(|(name, kind)| ((*name).to_owned(), example(name, *kind))).collect();
        serde_json::from_value::<T>(all.clone().into()).unwrap();
        let kinds = [ParameterType::String, ParameterType::Integer, ParameterType::Boolean, ParameterType::Strings];
        for (name, kind) in *parameters {
            for wrong in kinds.iter().filter(|other| *other != kind) {
                let mut params = all.clone();
                params.insert((*name).to_owned(), example(name, *wrong));
                let taken = serde_json::from_value::<T>(params.into());
                assert!(taken.is_err(), "{method}: {name} is {kind:?} and {wrong:?} was taken: {taken:?}");
            }
        }
    }

    #[test]
    fn the_table_of_methods_says_what_requests_take() {
        assert_takes::<IdRequest>("device");
        assert_takes::<EnrollRequest>("enroll");
        assert_takes::<EditRequest>("device_edit");
        assert_takes::<SwitchRequest>("device_switch");
        assert_takes::<ResetRequest>("device_reset");
        assert_takes::<DeviceCloneRequest>("device_clone");
        assert_takes::<SnapshotRequest>("snapshot");
        assert_takes::<IdRequest>("snapshots");
        assert_takes::<SnapshotRemoveRequest>("snapshot_remove");
        assert_takes::<RollbackRequest>("rollback");
        assert_takes::<UnenrollRequest>("unenroll");
        assert_takes::<BackupRequest>("backup");
        assert_takes::<RestoreRequest>("restore");
        assert_takes::<ExportRequest>("export");
        assert_takes::<ImportAllRequest>("import_all");
        assert_takes::<ImportRequest>("image_import");
        assert_takes::<NameRequest>("image_remove");
        assert_takes::<OsListRequest>("os_list");
        assert_takes::<JobRequest>("job_cancel");
        assert_takes::<BootsRequest>("boots");
        assert_takes::<BootRequest>("boot");
        assert_takes::<LedRequest>("led");
        assert_takes::<BootRequest>("boot_packets");
        assert_takes::<UploadRequest>("image_upload");
        assert_takes::<PieceRequest>("image_upload_piece");
        let with_parameters = METHODS.iter().chain(STREAMED).filter(|(_, parameters)| !parameters.is_empty());
        assert_eq!(with_parameters.count(), 25, "one of them is not compared above");
    }
}
