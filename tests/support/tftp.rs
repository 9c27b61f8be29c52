//! A machine's view of the agent's TFTP, in lock step as RFC 1350 has it.

use std::net::UdpSocket;

use emupi::lab::Host;

use super::PATIENCE;

/// Fetches a file; `meanwhile` hears of each block's number before it is acknowledged.
///
/// # Errors
/// With the error code of the server.
pub fn fetch(host: &Host, name: &str, mut meanwhile: impl FnMut(u16) + Send) -> Result<Vec<u8>, u16> {
    host.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(format!("\0\x01{name}\0octet\0").as_bytes(), ("10.77.0.1", 69)).unwrap();
        let (mut content, mut expected) = (Vec::new(), 1_u16);
        loop {
            let mut packet = [0; 600];
            let (len, peer) = socket.recv_from(&mut packet).unwrap();
            let number = u16::from_be_bytes([packet[2], packet[3]]);
            match packet[1] {
                5 => return Err(number),
                3 if number == expected => {
                    meanwhile(number);
                    content.extend_from_slice(&packet[4..len]);
                    expected = expected.wrapping_add(1);
                }
                // Sent again while `meanwhile` was busy.
                3 => continue,
                other => panic!("opcode {other}"),
            }
            let [high, low] = number.to_be_bytes();
            socket.send_to(&[0, 4, high, low], peer).unwrap();
            if len < 4 + 512 {
                return Ok(content);
            }
        }
    })
    .unwrap()
}
