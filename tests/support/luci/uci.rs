//! rpcd's object `uci`, as far as forms need it, by OpenWrt's own `uci`. Changes of a session are apart until applied.

use serde_json::{Map, Value, json};

use crate::openwrt::Entrance;
use crate::openwrt::uci::{Value as Held, parse};

/// Where a session's changes are kept, on the router.
const SAVED: &str = "/tmp/luci-session";

fn uci(router: Entrance, args: &[&str]) -> Option<String> {
    let _ = std::fs::create_dir_all(router.outside(SAVED));
    let output = router.output("uci", &[&["-t", SAVED], args].concat());
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// Status and answer.
pub fn call(router: Entrance, method: &str, params: &Value) -> (i32, Option<Value>) {
    let config = params["config"].as_str().unwrap_or_default();
    match method {
        "get" => match uci(router, &["-n", "export", config]) {
            Some(export) => (0, Some(json!({ "values": values(&export) }))),
            None => (4, None),
        },
        "set" => {
            let section = params["section"].as_str().unwrap_or_default();
            for (option, value) in params["values"].as_object().into_iter().flatten() {
                set(router, &format!("{config}.{section}.{option}"), value);
            }
            (0, Some(json!({})))
        }
        "delete" => {
            let section = params["section"].as_str().unwrap_or_default();
            for option in params["options"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                uci(router, &["delete", &format!("{config}.{section}.{option}")]);
            }
            (0, Some(json!({})))
        }
        "changes" => (0, Some(json!({ "changes": changes(router) }))),
        _ => (3, None),
    }
}

fn set(router: Entrance, place: &str, value: &Value) {
    match value {
        Value::Array(items) => {
            uci(router, &["-q", "delete", place]);
            for item in items {
                uci(router, &["add_list", &format!("{place}={}", item.as_str().unwrap())]);
            }
        }
        Value::String(text) => drop(uci(router, &["set", &format!("{place}={text}")])),
        other => drop(uci(router, &["set", &format!("{place}={other}")])),
    }
}

fn values(export: &str) -> Value {
    let sections = parse(export).into_iter().enumerate().map(|(index, section)| {
        let mut values: Map<String, Value> = Map::new();
        values.insert(".anonymous".into(), section.name.starts_with("cfg").into());
        values.insert(".type".into(), section.kind.into());
        values.insert(".name".into(), section.name.clone().into());
        values.insert(".index".into(), index.into());
        for (name, value) in section.options {
            let value = match value {
                Held::Text(text) => text.into(),
                Held::List(items) => items.into(),
            };
            values.insert(name, value);
        }
        (section.name, Value::Object(values))
    });
    Value::Object(sections.collect())
}

/// One entry is enough to tell forms that there is something to apply.
fn changes(router: Entrance) -> Value {
    let lines = uci(router, &["changes"]).unwrap_or_default();
    let list: Vec<Value> = lines.lines().map(|line| json!(["set", "main", line, ""])).collect();
    if list.is_empty() { json!({}) } else { json!({ "piboot": list }) }
}

/// `apply`: the changes of the session are committed.
pub fn apply(router: Entrance) {
    uci(router, &["commit", "piboot"]).unwrap();
}
