//! Tests of the protocol, with a broker played by hand: what a real one does not do is tried here.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::pi::Mac;
use crate::ubus::UbusError;

const LISTENER: u32 = 0x8000_0001;
const OBJECT: u32 = 77;

/// A session with what it told and what it asked.
struct Fixture {
    session: Session,
    told: mpsc::Receiver<Notice>,
}

/// What was asked: kind, number, receiver and method.
type Asked = (MsgType, u16, u32, Option<String>);

impl Fixture {
    fn new() -> Self {
        let (notices, told) = mpsc::channel(8);
        Self { session: Session::new(notices), told }
    }

    /// One that is registered.
    fn registered() -> Self {
        let mut fixture = Self::new();
        fixture.send(MsgType::Hello, 0, 5, |_| ()).unwrap();
        let [(MsgType::AddObject, seq, 0, None)] = fixture.asked()[..] else { panic!("one object first") };
        fixture.answer(seq, 0, 0, Some(LISTENER)).unwrap();
        let object = fixture.asked().into_iter().find(|(kind, ..)| *kind == MsgType::AddObject).unwrap();
        fixture.answer(object.1, 0, 0, Some(OBJECT)).unwrap();
        assert_eq!(fixture.told.try_recv(), Ok(Notice::Connected));
        fixture
    }

    fn send(
        &mut self,
        kind: MsgType,
        seq: u16,
        peer: u32,
        fill: impl FnOnce(&mut EnvBuilder),
    ) -> Result<Option<Invocation>, SessionError> {
        let (mut envelope, mut bytes) = (EnvBuilder::new(), Vec::new());
        fill(&mut envelope);
        message::write(&mut bytes, kind, seq, peer, envelope);
        let (message, length) = message::next(&bytes).unwrap().unwrap();
        assert_eq!(length, bytes.len());
        self.session.take(&message.unwrap())
    }

    /// Data with an object, then a status.
    fn answer(&mut self, seq: u16, peer: u32, status: i32, object: Option<u32>) -> Result<(), SessionError> {
        if let Some(id) = object {
            self.send(MsgType::Data, seq, peer, |envelope| envelope.push_u32(UbusAttr::ObjId, id))?;
        }
        self.send(MsgType::Status, seq, peer, |envelope| envelope.push_i32(UbusAttr::Status, status)).map(|_| ())
    }

    fn invoke(&mut self, object: u32, method: &str, user: Option<&str>, data: &Value) -> Option<Invocation> {
        self.invoke_from(42, object, method, user, data)
    }

    /// An event, as the broker passes it on.
    fn event(&mut self, id: &str, data: &Value) {
        assert!(self.invoke_from(0, LISTENER, id, None, data).is_none());
    }

    fn invoke_from(
        &mut self,
        peer: u32,
        object: u32,
        method: &str,
        user: Option<&str>,
        data: &Value,
    ) -> Option<Invocation> {
        let table = value::encode(data, 4096).unwrap();
        let taken = self.send(MsgType::Invoke, 9, peer, |envelope| {
            envelope.push_u32(UbusAttr::ObjId, object);
            envelope.push_str(UbusAttr::Method, method);
            user.into_iter().for_each(|user| envelope.push_str(UbusAttr::User, user));
            envelope.push_data(table.contents());
        });
        taken.unwrap()
    }

    fn asked(&mut self) -> Vec<Asked> {
        let bytes = std::mem::take(&mut self.session.out);
        let (mut rest, mut asked) = (&bytes[..], Vec::new());
        while let Some((message, length)) = message::next(rest).unwrap() {
            let Message { kind, seq, peer, attributes } = message.unwrap();
            asked.push((kind, seq, peer, attributes.method.map(str::to_owned)));
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
        asked
    }
}

#[test]
fn an_object_that_is_taken_or_refused_ends_the_session_with_the_reason() {
    for (status, why) in [(2, SessionError::Taken), (6, SessionError::Refused(6))] {
        let mut fixture = Fixture::new();
        fixture.send(MsgType::Hello, 0, 5, |_| ()).unwrap();
        let seq = fixture.asked()[0].1;
        fixture.answer(seq, 0, 0, Some(LISTENER)).unwrap();
        let object = fixture.asked().into_iter().find(|(kind, ..)| *kind == MsgType::AddObject).unwrap();
        assert_eq!(fixture.answer(object.1, 0, status, None), Err(why));
        assert!(!fixture.session.is_registered());
    }
}

#[test]
fn only_who_was_asked_answers() {
    let mut fixture = Fixture::registered();
    let (reply, answer) = sync_channel(1);
    let call = Outgoing::new("service", "list", &json!({}), Duration::from_secs(5), reply).unwrap();
    fixture.session.call(call);
    let (_, seq, ..) = fixture.asked().pop().unwrap();
    fixture.answer(seq, 66, 0, Some(66)).unwrap();
    assert!(fixture.asked().is_empty(), "another client's guess");
    fixture.answer(seq, 0, 0, Some(500)).unwrap();
    let (kind, seq, peer, method) = fixture.asked().pop().unwrap();
    assert_eq!((kind, peer, method.as_deref()), (MsgType::Invoke, 500, Some("list")));
    fixture.answer(seq, 0, 0, None).unwrap();
    assert!(answer.try_recv().is_err());
    fixture.send(MsgType::Data, seq, 500, |envelope| envelope.push_data(b"")).unwrap();
    fixture.answer(seq, 500, 0, None).unwrap();
    assert_eq!(answer.recv().unwrap(), Ok(json!({})));
    assert!(!fixture.asked().iter().any(|(kind, ..)| *kind == MsgType::Invoke));
}

#[test]
fn a_broker_that_answers_nothing_costs_a_bounded_number_of_requests() {
    let mut fixture = Fixture::registered();
    (0..10_000).for_each(|_| fixture.session.event("piboot.job", &json!({ "id": 1 })));
    assert!(fixture.asked().len() < 600);
    let (reply, answer) = sync_channel(1);
    fixture.session.call(Outgoing::new("service", "list", &json!({}), Duration::from_secs(5), reply).unwrap());
    assert_eq!(answer.recv().unwrap(), Err(UbusError::Busy));
}

#[test]
fn leases_are_believed_from_dnsmasq_and_root_only() {
    let mut fixture = Fixture::registered();
    let lease = json!({ "mac": "dc:a6:32:00:00:01", "ip": "10.77.0.30", "interface": "br-lan" });
    for user in [None, Some("nobody"), Some("")] {
        assert!(fixture.invoke(LISTENER, "dhcp.ack", user, &lease).is_none());
    }
    assert!(fixture.told.try_recv().is_err());
    for (user, method, present) in [("dnsmasq", "dhcp.ack", true), ("root", "dhcp.release", false)] {
        fixture.invoke(LISTENER, method, Some(user), &lease);
        let (mac, ip, interface) = (Mac([0xdc, 0xa6, 0x32, 0, 0, 1]), [10, 77, 0, 30].into(), "br-lan".to_owned());
        assert_eq!(fixture.told.try_recv(), Ok(Notice::Lease { mac, ip, interface, present }));
    }
}

#[test]
fn each_publisher_is_subscribed_to_once_and_never_too_many() {
    let mut fixture = Fixture::registered();
    let added = |fixture: &mut Fixture, id: u32, path: &str| {
        fixture.event("ubus.object.add", &json!({ "id": id.cast_signed(), "path": path }));
        fixture.asked().iter().filter(|(kind, ..)| *kind == MsgType::Subscribe).count()
    };
    assert_eq!(added(&mut fixture, 100, "dnsmasq"), 1);
    assert_eq!(added(&mut fixture, 100, "dnsmasq"), 0, "it is already");
    assert_eq!(added(&mut fixture, 0xffff_fff0, "dnsmasq.second"), 1, "a number beyond the signed");
    assert_eq!(added(&mut fixture, 102, "dnsmasquerade"), 0, "another object");
    fixture.send(MsgType::Unsubscribe, 0, 0, |envelope| envelope.push_u32(UbusAttr::Target, 100)).unwrap();
    assert_eq!(added(&mut fixture, 100, "dnsmasq"), 1, "it had gone");
    assert_eq!(added(&mut fixture, 101, "dnsmasq.second"), 1, "it was started anew");
    let many: usize = (1000..1100).map(|id| added(&mut fixture, id, &format!("dnsmasq.x{id}"))).sum();
    assert_eq!(many, MAX_INSTANCES - 1);
    assert_eq!(added(&mut fixture, 102, "dnsmasq.second"), 1, "whoever has a place keeps it");
    assert_eq!(
        (added(&mut fixture, 103, "dnsmasq"), added(&mut fixture, 104, "service")),
        (1, 1),
        "who always has one"
    );
    fixture.send(MsgType::Unsubscribe, 0, 0, |envelope| envelope.push_u32(UbusAttr::Target, 1000)).unwrap();
    assert_eq!(added(&mut fixture, 105, &format!("dnsmasq.{}", "x".repeat(MAX_PATH))), 0);
    assert_eq!(added(&mut fixture, 105, "dnsmasq.third"), 1, "a place became free");
}

#[test]
fn what_the_broker_tells_is_believed_from_the_broker_only() {
    let mut fixture = Fixture::registered();
    let object = json!({ "id": 100, "path": "dnsmasq" });
    let interface = json!({ "interface": "lan", "action": "ifup" });
    for user in [None, Some("nobody"), Some("root")] {
        fixture.invoke(LISTENER, "ubus.object.add", user, &object);
        fixture.invoke(LISTENER, "network.interface", user, &interface);
        assert!(fixture.asked().iter().all(|(kind, ..)| *kind == MsgType::Status), "{user:?}");
        assert!(fixture.told.try_recv().is_err());
    }
    fixture.event("network.interface", &interface);
    assert_eq!(fixture.told.try_recv(), Ok(Notice::Interface { name: "lan".to_owned(), up: true }));

    // And what procd tells from procd: an event of that name is not.
    let config = json!({ "config": "piboot" });
    fixture.event("config.change", &config);
    for user in [None, Some("nobody"), Some("dnsmasq")] {
        fixture.invoke(LISTENER, "config.change", user, &config);
    }
    assert!(fixture.told.try_recv().is_err());
    fixture.invoke(LISTENER, "config.change", Some("root"), &config);
    assert_eq!(fixture.told.try_recv(), Ok(Notice::ConfigChanged { package: "piboot".to_owned() }));
}

#[test]
fn who_does_not_wait_gets_no_answer_and_what_is_not_ours_is_refused() {
    let mut fixture = Fixture::registered();
    let Invocation { caller, method, params } = fixture.invoke(OBJECT, "status", None, &json!({ "a": 1 })).unwrap();
    assert_eq!((method.as_str(), params), ("status", Ok(json!({ "a": 1 }))));
    fixture.session.answer(caller, "status", Ok(json!({})));
    let answered = fixture.asked();
    assert_eq!(answered, [(MsgType::Data, 9, 42, None), (MsgType::Status, 9, 42, None)]);
    fixture.session.answer(Caller { no_reply: true, ..caller }, "status", Ok(json!({})));
    assert!(fixture.asked().is_empty());
    assert!(fixture.invoke(OBJECT + 1, "status", None, &json!({})).is_none());
    assert_eq!(fixture.asked(), [(MsgType::Status, 9, 42, None)]);
}
