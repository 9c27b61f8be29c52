//! A server on loopback over a scratch directory, and clients of an independent implementation.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod attacks;
pub(crate) mod calls;
pub(crate) mod device;
pub(crate) mod random;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nfs3_client::tokio::TokioIo;
use nfs3_client::{MountClient, MountError, Nfs3Client, PortmapperClient};
use nfs3_types::mount::dirpath;
use nfs3_types::nfs3::{self, Nfs3Option, Nfs3Result, nfs_fh3, nfsstat3};
use nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_types::xdr_codec::{Opaque, Pack};
use piboot::clock::Clock;
use piboot::events::{Event, Nfs, Sink, What};
use piboot::net::AddressBook;
use piboot::nfs::{Export, Handle, Limits, RootIs, Server, ServerConfig, Who};
use tokio::sync::mpsc::Receiver;

pub(crate) const KEY: [u8; 16] = *b"a key for tests.";
pub(crate) type Client = Nfs3Client<TokioIo<tokio::net::TcpStream>>;

/// Acting for users needs root; says so and returns false without it.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: an NFS server acts for users, which needs root");
    }
    root
}

/// A scratch directory that others than root can enter.
pub(crate) fn scratch() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

pub(crate) struct Fixture {
    pub(crate) server: Handle,
    pub(crate) events: Receiver<Event>,
    pub(crate) clock: Clock,
    pub(crate) book: AddressBook,
}

/// Limits that do not depend on the machine.
pub(crate) fn limits() -> Limits {
    Limits::for_machine(1 << 30, 2)
}

pub(crate) fn config() -> ServerConfig {
    ServerConfig {
        listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
        portmap: Some(0),
        limits: limits(),
        insecure_ports: true,
        ..ServerConfig::new(KEY)
    }
}

pub(crate) fn start_with(config: ServerConfig, exports: Vec<Export>) -> Fixture {
    start_at(Clock::manual(0), config, exports)
}

pub(crate) fn start_at(clock: Clock, config: ServerConfig, exports: Vec<Export>) -> Fixture {
    let (sink, events) = Sink::new(clock.clone());
    let book = AddressBook::observed_only();
    let server = Server::start(config, book.clone(), sink).unwrap();
    assert_eq!(server.set_exports(exports), []);
    Fixture { server, events, clock, book }
}

pub(crate) fn start(dir: &Path) -> Fixture {
    start_with(config(), vec![export(1, "/pi/root", dir)])
}

/// An export for loopback, with root as root.
pub(crate) fn export(id: u16, name: &str, dir: &Path) -> Export {
    Export {
        id,
        name: Arc::from(name),
        dir: dir.to_owned(),
        layered: None,
        read_only: false,
        root: RootIs::Root,
        holder: Who::Addresses(vec!["127.0.0.0/8".parse().unwrap()]),
        quota: None,
    }
}

impl Fixture {
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.server.ports().nfs))
    }

    pub(crate) fn portmap_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.server.ports().portmap.unwrap()))
    }

    pub(crate) async fn mounter(&self) -> MountClient<TokioIo<tokio::net::TcpStream>> {
        MountClient::new(TokioIo::new(tokio::net::TcpStream::connect(self.address()).await.unwrap()))
    }

    pub(crate) async fn portmapper(&self) -> PortmapperClient<TokioIo<tokio::net::TcpStream>> {
        PortmapperClient::new(TokioIo::new(tokio::net::TcpStream::connect(self.portmap_address()).await.unwrap()))
    }

    pub(crate) async fn mount(&self, export: &str) -> Result<nfs_fh3, MountError> {
        let path = dirpath(Opaque::owned(export.as_bytes().to_vec()));
        let mounted = self.mounter().await.mnt(path).await?;
        Ok(fh(&mounted.fhandle.0))
    }

    pub(crate) async fn client(&self, uid: u32, gid: u32, gids: &[u32]) -> Client {
        let stream = tokio::net::TcpStream::connect(self.address()).await.unwrap();
        Nfs3Client::new_with_auth(TokioIo::new(stream), auth(uid, gid, gids), opaque_auth::default())
    }

    pub(crate) async fn root(&self) -> Client {
        self.client(0, 0, &[]).await
    }

    /// What NFS events there are so far.
    pub(crate) fn seen(&mut self) -> Vec<Nfs> {
        let events = std::iter::from_fn(|| self.events.try_recv().ok());
        events
            .map(|event| match event.what {
                What::Nfs { event, .. } => event,
                other => panic!("{other:?}"),
            })
            .collect()
    }
}

pub(crate) fn auth(uid: u32, gid: u32, gids: &[u32]) -> opaque_auth<'static> {
    let machinename = Opaque::owned(b"test".to_vec());
    opaque_auth::auth_unix(&auth_unix { stamp: 1, machinename, uid, gid, gids: gids.to_vec() })
}

pub(crate) fn fh(bytes: &[u8]) -> nfs_fh3 {
    nfs_fh3 { data: Opaque::owned(bytes.to_vec()) }
}

pub(crate) fn at<'a>(dir: &nfs_fh3, name: &'a [u8]) -> nfs3::diropargs3<'a> {
    nfs3::diropargs3 { dir: dir.clone(), name: nfs3::filename3(Opaque::borrowed(name)) }
}

pub(crate) fn mode(mode: u32) -> nfs3::sattr3 {
    nfs3::sattr3 { mode: Nfs3Option::Some(mode), ..Default::default() }
}

pub(crate) fn some<T: Pack + nfs3_types::xdr_codec::Unpack>(option: Nfs3Option<T>) -> T {
    match option {
        Nfs3Option::Some(value) => value,
        Nfs3Option::None => panic!("absent"),
    }
}

pub(crate) fn status<T, E>(result: &Nfs3Result<T, E>) -> nfsstat3 {
    match result {
        Nfs3Result::Ok(_) => nfsstat3::NFS3_OK,
        Nfs3Result::Err((status, _)) => *status,
    }
}

pub(crate) async fn lookup(client: &mut Client, dir: &nfs_fh3, name: &[u8]) -> Result<nfs_fh3, nfsstat3> {
    match client.lookup(&nfs3::LOOKUP3args { what: at(dir, name) }).await.unwrap() {
        Nfs3Result::Ok(ok) => Ok(ok.object),
        Nfs3Result::Err((status, _)) => Err(status),
    }
}

pub(crate) async fn getattr(client: &mut Client, object: &nfs_fh3) -> Result<nfs3::fattr3, nfsstat3> {
    match client.getattr(&nfs3::GETATTR3args { object: object.clone() }).await.unwrap() {
        Nfs3Result::Ok(ok) => Ok(ok.obj_attributes),
        Nfs3Result::Err((status, _)) => Err(status),
    }
}

pub(crate) async fn create(client: &mut Client, dir: &nfs_fh3, name: &[u8], bits: u32) -> Result<nfs_fh3, nfsstat3> {
    let args = nfs3::CREATE3args { where_: at(dir, name), how: nfs3::createhow3::GUARDED(mode(bits)) };
    match client.create(&args).await.unwrap() {
        Nfs3Result::Ok(ok) => Ok(some(ok.obj)),
        Nfs3Result::Err((status, _)) => Err(status),
    }
}

pub(crate) async fn read(
    client: &mut Client,
    file: &nfs_fh3,
    offset: u64,
    count: u32,
) -> Result<(Vec<u8>, bool), nfsstat3> {
    match client.read(&nfs3::READ3args { file: file.clone(), offset, count }).await.unwrap() {
        Nfs3Result::Ok(ok) => {
            assert_eq!(ok.count as usize, ok.data.len());
            Ok((ok.data.to_vec(), ok.eof))
        }
        Nfs3Result::Err((status, _)) => Err(status),
    }
}

pub(crate) async fn write(
    client: &mut Client,
    file: &nfs_fh3,
    offset: u64,
    data: &[u8],
    stable: nfs3::stable_how,
) -> Result<nfs3::WRITE3resok, nfsstat3> {
    let count = u32::try_from(data.len()).unwrap();
    let args = nfs3::WRITE3args { file: file.clone(), offset, count, stable, data: Opaque::borrowed(data) };
    match client.write(&args).await.unwrap() {
        Nfs3Result::Ok(ok) => Ok(ok),
        Nfs3Result::Err((status, _)) => Err(status),
    }
}

/// A connection that is spoken to in bytes.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// From this address of loopback.
    pub(crate) fn connect_from(from: IpAddr, address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// A call with this header and these arguments, by root.
    pub(crate) fn message(xid: u32, program: u32, version: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
        Self::message_of(&auth(0, 0, &[]), [xid, program, version, procedure], args)
    }

    pub(crate) fn message_of(caller: &opaque_auth<'_>, header: [u32; 4], args: &[u8]) -> Vec<u8> {
        let [xid, program, version, procedure] = header;
        let mut out = Vec::new();
        for word in [xid, 0, 2, program, version, procedure] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        caller.pack(&mut out).unwrap();
        opaque_auth::default().pack(&mut out).unwrap();
        out.extend_from_slice(args);
        out
    }

    pub(crate) fn send(&mut self, message: &[u8]) {
        let mark = u32::try_from(message.len()).unwrap() | 1 << 31;
        self.0.write_all(&[&mark.to_be_bytes()[..], message].concat()).unwrap();
    }

    /// The next reply; `None` when the server has closed the connection.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        let mut mark = [0; 4];
        match self.0.read_exact(&mut mark) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                panic!("neither a reply nor an end: {error}")
            }
            Err(_) => return None,
        }
        let mut reply = vec![0; (u32::from_be_bytes(mark) & 0x7fff_ffff) as usize];
        self.0.read_exact(&mut reply).unwrap();
        Some(reply)
    }

    pub(crate) fn ask(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        self.send(message);
        self.receive()
    }
}
