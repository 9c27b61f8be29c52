//! The pages around the views, as LuCI's templates make them.

use std::fs;

use serde_json::{Value, json};

use super::rights::Login;

fn menu_file() -> Value {
    let path = format!("{}/root/usr/share/luci/menu.d/luci-app-piboot.json", super::APP);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The menu of a login: what menu.d has, as a tree.
pub fn menu(login: Login) -> Value {
    let mut tree = json!({ "children": {} });
    if login == Login::Stranger {
        return tree;
    }
    for (path, entry) in menu_file().as_object().unwrap().iter().filter(|(_, entry)| may_see(login, entry)) {
        let mut node = &mut tree;
        for name in path.split('/') {
            let title = match name {
                "admin" => "Administration",
                "services" => "Services",
                _ => "",
            };
            let children = node.as_object_mut().unwrap().entry("children").or_insert_with(|| json!({}));
            node =
                children.as_object_mut().unwrap().entry(name).or_insert_with(
                    || json!({ "title": title, "satisfied": true, "action": { "type": "firstchild" } }),
                );
        }
        for (name, value) in entry.as_object().unwrap() {
            node[name] = value.clone();
        }
        node["readonly"] = (login != Login::Admin).into();
    }
    tree
}

/// The dispatcher leaves out an entry of whose groups of rights the login has none.
fn may_see(login: Login, entry: &Value) -> bool {
    entry["depends"]["acl"].as_array().is_none_or(|groups| groups.iter().any(|g| login.has_of(g.as_str().unwrap())))
}

/// The page at `path` below `/cgi-bin/luci/`; `None` if the menu has none there.
pub fn render(path: &str, login: Login, scheme: &str) -> Option<String> {
    let menu = menu_file();
    let entry = &menu[path];
    let view = match path {
        // LuCI's own page, with our part of it only.
        "admin/status/overview" => "status/index",
        _ => entry["action"]["path"].as_str()?,
    };
    if login == Login::Stranger || !may_see(login, entry) {
        return None;
    }
    let parts: Vec<&str> = path.split('/').collect();
    let env = json!({
        "media": "/luci-static/bootstrap",
        "resource": "/luci-static/resources",
        "base_url": "/luci-static/resources",
        "scriptname": "/cgi-bin/luci",
        "pathinfo": format!("/{path}"),
        "documentroot": "/www",
        "requestpath": parts,
        "dispatchpath": parts,
        "pollinterval": 5,
        "ubuspath": "/ubus/",
        "sessionid": login.session(),
        "token": "0",
        "nodespec": { "title": entry["title"], "satisfied": true, "readonly": login != Login::Admin },
        "apply_rollback": 90, "apply_holdoff": 1, "apply_timeout": 5, "apply_display": 0.1,
    });
    let dark = scheme == "dark";
    Some(format!(
        r#"<!DOCTYPE html>
<html lang="en" data-darkmode="{dark}">
<head>
<meta charset="utf-8"><title>OpenWrt | {title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/luci-static/bootstrap/cascade.css">
<link rel="stylesheet" media="only screen and (max-device-width: 854px)" href="/luci-static/bootstrap/mobile.css">
<link rel="icon" href="data:,">
<script src="/cgi-bin/luci/admin/translations/en"></script>
<script src="/luci-static/resources/cbi.js"></script>
</head>
<body class="lang_en" data-page="{page}">
<header><a class="brand" href="/">OpenWrt</a><ul class="nav" id="topmenu" style="display:none"></ul>
<div id="indicators" class="pull-right"></div></header>
<div id="maincontent" class="container">
<div id="tabmenu" style="display:none"></div>
<script src="/luci-static/resources/luci.js"></script>
<script>L = new LuCI({env});</script>
<div id="view"><div class="spinning">Loading view…</div>
<script>L.require('ui').then(function(ui) {{ ui.instantiateView('{view}'); }});</script></div>
</div>
<footer><ul class="breadcrumb pull-right" id="modemenu" style="display:none"></ul></footer>
<script>L.require('menu-bootstrap')</script>
</body></html>"#,
        title = entry["title"].as_str().unwrap_or("Status"),
        page = parts.join("-"),
    ))
}
