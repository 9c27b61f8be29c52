//! A machine's view of the agent's NFS, through a client that shares no code with it.

use std::net::Ipv4Addr;
use std::sync::Once;

use emupi::lab::Host;
use nfs3_client::nfs3_types::nfs3::{
    CREATE3args, GETATTR3args, GETATTR3res, LINK3args, LOOKUP3args, LOOKUP3res, Nfs3Option, Nfs3Result, READ3args,
    READDIR3args, REMOVE3args, RENAME3args, SETATTR3args, WRITE3args, cookieverf3, createhow3, diropargs3, fattr3,
    filename3, nfs_fh3, nfsstat3, sattr3, stable_how,
};
use nfs3_client::nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_client::nfs3_types::xdr_codec::Opaque;
use nfs3_client::tokio::{TokioConnector, TokioIo};
use nfs3_client::{Nfs3Connection, Nfs3ConnectionBuilder};
use tokio::net::TcpStream;

use super::PATIENCE;

/// The lab's router.
const SERVER: &str = "10.77.0.1";

/// Mounts an export; then calls `meanwhile` and asks for the root's attributes once more.
///
/// # Errors
/// Says which of the two steps was refused, and how.
pub fn use_export(host: &Host, export: &str, meanwhile: impl FnOnce() + Send) -> Result<(), String> {
    let talk = async move {
        let mut connection = mount(SERVER, export).await?;
        meanwhile();
        let object = connection.root_nfs_fh3();
        match connection.getattr(&GETATTR3args { object }).await {
            Ok(GETATTR3res::Ok(_)) => Ok(()),
            Ok(GETATTR3res::Err((status, _))) => Err(format!("getattr: {status:?}")),
            Err(error) => Err(format!("getattr: {error}")),
        }
    };
    run(host, talk)
}

/// Mounts an export and reads one of its top directory's names; the handle that was given for it.
pub fn handle_of(host: &Host, export: &str, name_: &str) -> Vec<u8> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let talk = async move {
        let mut connection = mount(SERVER, export).await?;
        let what = diropargs3 { dir: connection.root_nfs_fh3(), name: name(name_) };
        match connection.lookup(&LOOKUP3args { what }).await.map_err(|e| e.to_string())? {
            LOOKUP3res::Ok(found) => sender.send(found.object.data.to_vec()).map_err(|e| e.to_string()),
            LOOKUP3res::Err((status, _)) => Err(format!("lookup: {status:?}")),
        }
    };
    run(host, talk).unwrap();
    receiver.recv().unwrap()
}

/// What the server sees of a system that starts: it mounts its root, writes, and looks these names up in `/`. Then the
/// cable is pulled, and what `until` waits for happens while the connection is still open here.
pub fn start_and_vanish(host: &Host, export: &str, names: &[&str], until: impl FnOnce() + Send) {
    let talk = async move {
        let mut connection = mount(SERVER, export).await?;
        write_first(&mut connection).await?;
        for looked_up in names {
            let what = diropargs3 { dir: connection.root_nfs_fh3(), name: name(looked_up) };
            connection.lookup(&LOOKUP3args { what }).await.map_err(|e| e.to_string())?;
        }
        let pulled = std::process::Command::new("ip").args(["link", "set", "eth0", "down"]).status();
        assert!(pulled.is_ok_and(|status| status.success()));
        until();
        drop(connection);
        Ok(())
    };
    run(host, talk).unwrap();
}

/// A system starts as far as its first write, with its root on `server`.
pub fn start(server: Ipv4Addr, host: &Host, export: &str) {
    let server = server.to_string();
    let talk = async move {
        let mut connection = mount(&server, export).await?;
        write_first(&mut connection).await
    };
    run(host, talk).unwrap();
}

/// A system starts whose root is read-only: it mounts that and looks up what is at the end of the path.
pub fn start_read_only(host: &Host, export: &str, path: &[&str]) {
    let talk = async move {
        let mut connection = mount(SERVER, export).await?;
        let mut dir = connection.root_nfs_fh3();
        for part in path {
            let what = diropargs3 { dir, name: name(part) };
            match connection.lookup(&LOOKUP3args { what }).await.map_err(|e| e.to_string())? {
                LOOKUP3res::Ok(found) => dir = found.object,
                LOOKUP3res::Err((status, _)) => return Err(format!("{part}: {status:?}")),
            }
        }
        Ok(())
    };
    run(host, talk).unwrap();
}

/// Fills the disk: writes a file until there is no room; then once more over what is there. Says how much was written, and how
/// both ended.
pub fn fill(host: &Host, export: &str) -> (u64, [String; 2]) {
    const PIECE: usize = 256 << 10;
    let mut filled = (0, [const { String::new() }; 2]);
    let told = &mut filled;
    let talk = async move {
        let mut connection = mount(SERVER, export).await?;
        let how = createhow3::UNCHECKED(sattr3::default());
        let place = |what: &str, dir| diropargs3 { dir, name: name(what) };
        let where_ = place("fills-the-disk", connection.root_nfs_fh3());
        let made = connection.create(&CREATE3args { where_, how }).await.map_err(|e| e.to_string())?;
        let Nfs3Result::Ok(made) = made else { return Err(format!("{made:?}")) };
        let Nfs3Option::Some(file) = made.obj else { return Err("no handle".to_owned()) };
        let piece = vec![7; PIECE];
        let count = u32::try_from(PIECE).unwrap();
        let data = |offset| {
            let (file, data) = (file.clone(), Opaque::borrowed(&piece));
            WRITE3args { file, offset, count, stable: stable_how::UNSTABLE, data }
        };
        told.1[0] = loop {
            match connection.write(&data(told.0)).await.map_err(|e| e.to_string())? {
                Nfs3Result::Ok(ok) => told.0 += u64::from(ok.count),
                Nfs3Result::Err((status, _)) => break format!("{status:?}"),
            }
        };
        told.1[1] = match connection.write(&data(0)).await.map_err(|e| e.to_string())? {
            Nfs3Result::Ok(_) => "written".to_owned(),
            Nfs3Result::Err((status, _)) => format!("{status:?}"),
        };
        Ok(())
    };
    run(host, talk).unwrap();
    filled
}

/// What comes of every kind of change to an export, of which `file` is in the top directory: the statuses. That it can be read
/// is taken for granted. With a `handle`, that is what is written to.
pub fn try_to_change(host: &Host, export: &str, file: &str, handle: Option<&[u8]>) -> Vec<String> {
    let mut told = Vec::new();
    let statuses = &mut told;
    let talk = async move {
        let mut connection = mount(SERVER, export).await?;
        let place = |what: &str, dir| diropargs3 { dir, name: name(what) };
        let root = connection.root_nfs_fh3();
        let found = connection.lookup(&LOOKUP3args { what: place(file, root.clone()) }).await;
        let LOOKUP3res::Ok(found) = found.map_err(|e| e.to_string())? else { return Err(format!("no {file}")) };
        let object = handle.map_or(found.object, |bytes| nfs_fh3 { data: Opaque::owned(bytes.to_vec()) });
        let read = READ3args { file: object.clone(), offset: 0, count: 16 };
        let status = |result: &dyn std::fmt::Debug| {
            let text = format!("{result:?}");
            let code = text.split("NFS3ERR_").nth(1).unwrap_or("OK").split(|c: char| !c.is_ascii_uppercase()).next();
            code.unwrap_or_default().to_owned()
        };
        statuses.push(status(&connection.read(&read).await.map_err(|e| e.to_string())?));
        let write = WRITE3args {
            file: object.clone(),
            offset: 0,
            count: 4,
            stable: stable_how::FILE_SYNC,
            data: Opaque::borrowed(b"evil"),
        };
        statuses.push(status(&connection.write(&write).await.map_err(|e| e.to_string())?));
        let new_attributes = sattr3 { mode: Nfs3Option::Some(0o4777), ..sattr3::default() };
        let set = SETATTR3args { object: object.clone(), new_attributes, guard: Nfs3Option::None };
        statuses.push(status(&connection.setattr(&set).await.map_err(|e| e.to_string())?));
        for what in [file, "new"] {
            let how = createhow3::UNCHECKED(sattr3 { size: Nfs3Option::Some(0), ..sattr3::default() });
            let create = CREATE3args { where_: place(what, root.clone()), how };
            statuses.push(status(&connection.create(&create).await.map_err(|e| e.to_string())?));
        }
        let link = LINK3args { file: object, link: place("another", root.clone()) };
        statuses.push(status(&connection.link(&link).await.map_err(|e| e.to_string())?));
        let rename = RENAME3args { from: place(file, root.clone()), to: place("renamed", root.clone()) };
        statuses.push(status(&connection.rename(&rename).await.map_err(|e| e.to_string())?));
        let remove = REMOVE3args { object: place(file, root) };
        statuses.push(status(&connection.remove(&remove).await.map_err(|e| e.to_string())?));
        Ok(())
    };
    run(host, talk).unwrap();
    told
}

fn name(name: &str) -> filename3<'static> {
    filename3(Opaque::owned(name.as_bytes().to_vec()))
}

async fn write_first(connection: &mut Nfs3Connection<TokioIo<TcpStream>>) -> Result<(), String> {
    let where_ = diropargs3 { dir: connection.root_nfs_fh3(), name: name("first-write") };
    let how = createhow3::UNCHECKED(sattr3::default());
    connection.create(&CREATE3args { where_, how }).await.map_err(|e| e.to_string())?;
    Ok(())
}

async fn mount(server: &str, export: &str) -> Result<Nfs3Connection<TokioIo<TcpStream>>, String> {
    let credential = opaque_auth::auth_unix(&auth_unix {
        stamp: 1,
        machinename: Opaque::borrowed(b"test"),
        uid: 0,
        gid: 0,
        gids: vec![],
    });
    let builder = Nfs3ConnectionBuilder::new(TokioConnector, server, export).credential(credential);
    builder.mount().await.map_err(|e| format!("mount: {e}"))
}

/// The first runtime of a process makes sockets for signals that stay as long as the process: made in a host's namespace, they
/// would keep that, and its cable, after the host is gone.
fn have_tokios_sockets_here() {
    static FIRST: Once = Once::new();
    FIRST.call_once(|| drop(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()));
}

fn run(host: &Host, talk: impl Future<Output = Result<(), String>> + Send) -> Result<(), String> {
    have_tokios_sockets_here();
    host.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(PATIENCE * 2, talk).await.unwrap() })
    })
    .unwrap()
}

/// A connection to the agent's NFS, as root.
pub type Connection = Nfs3Connection<TokioIo<TcpStream>>;

/// Mounts an export and does something with it.
pub fn talk<T: Send>(host: &Host, export: &str, work: impl AsyncFnOnce(&mut Connection) -> T + Send) -> T {
    have_tokios_sockets_here();
    host.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let talk = async { work(&mut mount(SERVER, export).await.unwrap()).await };
            tokio::time::timeout(PATIENCE * 2, talk).await.unwrap()
        })
    })
    .unwrap()
}

/// What a name in a directory is called in requests.
pub fn place<'a>(dir: &nfs_fh3, name: &'a str) -> diropargs3<'a> {
    diropargs3 { dir: dir.clone(), name: filename3(Opaque::borrowed(name.as_bytes())) }
}

/// Handle and attributes of a name at the top.
pub async fn find(c: &mut Connection, name: &str) -> Result<(nfs_fh3, fattr3), nfsstat3> {
    let what = place(&c.root_nfs_fh3(), name);
    match c.lookup(&LOOKUP3args { what }).await.unwrap() {
        Nfs3Result::Ok(found) => match found.obj_attributes {
            Nfs3Option::Some(attributes) => Ok((found.object, attributes)),
            Nfs3Option::None => panic!("no attributes"),
        },
        Nfs3Result::Err((status, _)) => Err(status),
    }
}

/// Attributes of an object.
pub async fn attributes(c: &mut Connection, object: &nfs_fh3) -> Result<fattr3, nfsstat3> {
    match c.getattr(&GETATTR3args { object: object.clone() }).await.unwrap() {
        Nfs3Result::Ok(found) => Ok(found.obj_attributes),
        Nfs3Result::Err((status, _)) => Err(status),
    }
}

/// The first 4096 bytes of a file.
pub async fn content(c: &mut Connection, file: &nfs_fh3) -> Result<Vec<u8>, nfsstat3> {
    match c.read(&READ3args { file: file.clone(), offset: 0, count: 4096 }).await.unwrap() {
        Nfs3Result::Ok(found) => Ok(found.data.to_vec()),
        Nfs3Result::Err((status, _)) => Err(status),
    }
}

/// Writes at the beginning of a file.
pub async fn write(c: &mut Connection, file: &nfs_fh3, text: &str, stable: stable_how) {
    let count = u32::try_from(text.len()).unwrap();
    let data = Opaque::borrowed(text.as_bytes());
    let written = c.write(&WRITE3args { file: file.clone(), offset: 0, count, stable, data }).await.unwrap();
    assert!(matches!(written, Nfs3Result::Ok(_)), "{written:?}");
}

/// Removes a name at the top.
pub async fn remove(c: &mut Connection, name: &str) {
    let object = place(&c.root_nfs_fh3(), name);
    let removed = c.remove(&REMOVE3args { object }).await.unwrap();
    assert!(matches!(removed, Nfs3Result::Ok(_)), "{name}: {removed:?}");
}

/// Renames at the top.
pub async fn rename(c: &mut Connection, from: &str, to: &str) {
    let (from, to) = (place(&c.root_nfs_fh3(), from), place(&c.root_nfs_fh3(), to));
    let renamed = c.rename(&RENAME3args { from, to }).await.unwrap();
    assert!(matches!(renamed, Nfs3Result::Ok(_)), "{renamed:?}");
}

/// Names from this position on, as many as fit into an answer, and their positions; whether those were the last.
pub async fn list(
    c: &mut Connection,
    dir: &nfs_fh3,
    cookie: u64,
    cookieverf: cookieverf3,
) -> (Vec<(String, u64)>, cookieverf3, bool) {
    let listed = c.readdir(&READDIR3args { dir: dir.clone(), cookie, cookieverf, count: 4096 }).await.unwrap();
    let Nfs3Result::Ok(listed) = listed else { panic!("{listed:?}") };
    let name = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
    let names = listed.reply.entries.into_inner().into_iter().map(|e| (name(&e.name.0), e.cookie)).collect();
    (names, listed.cookieverf, listed.reply.eof)
}
