//! A name server that says what a test wants, on loopback.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::CNAME;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// What is said to a question.
pub(crate) enum Reply {
    /// These addresses (of the asked type), for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// There is no such name.
    NoName,
    /// Something else went wrong.
    Code(ResponseCode),
    /// Nothing, ever.
    Silence,
    /// The name is an alias of this one, which has these addresses.
    Alias(&'static str, Vec<IpAddr>),
    /// As the other one, after an answer that somebody else made up, who does not know the question's number.
    Forged(Box<Reply>),
    /// As the other one, but late.
    Late(Duration, Box<Reply>),
}

/// A running one; its thread ends with the test's process.
pub(crate) struct NameServer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, RecordType)>>>,
}

impl NameServer {
    /// Answers every question by `reply`, which gets the name without the dot at its end.
    pub(crate) fn start(reply: impl Fn(&str, RecordType) -> Reply + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut datagram = [0; 4096];
            while let Ok((len, peer)) = socket.recv_from(&mut datagram) {
                let Ok(question) = Message::from_vec(&datagram[..len]) else {
                    continue;
                };
                let query = question.queries[0].clone();
                let name = query.name().to_ascii();
                let name = name.trim_end_matches('.').to_lowercase();
                log.lock().unwrap().push((name.clone(), query.query_type()));
                let reply = reply(&name, query.query_type());
                answer(
                    &socket,
                    peer,
                    question,
                    reply,
                    query.name(),
                    query.query_type(),
                );
            }
        });
        Self { address, asked }
    }

    /// How often it was asked for the addresses of `name`.
    pub(crate) fn asked(&self, name: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(asked, _)| asked == name).count()
    }
}

fn answer(
    socket: &UdpSocket,
    peer: SocketAddr,
    question: Message,
    reply: Reply,
    name: &Name,
    kind: RecordType,
) {
    let mut message = question.into_response();
    message.metadata.recursion_available = true;
    match reply {
        Reply::Silence => return,
        Reply::Late(delay, reply) => {
            let (socket, name) = (socket.try_clone().unwrap(), name.clone());
            std::thread::spawn(move || {
                std::thread::sleep(delay);
                let mut question = message;
                question.answers.clear();
                answer(&socket, peer, question, *reply, &name, kind);
            });
            return;
        }
        Reply::Forged(reply) => {
            let mut forged = message.clone();
            forged.metadata.id ^= 1;
            let elsewhere = RData::from(IpAddr::from([192, 0, 2, 1]));
            forged
                .answers
                .push(Record::from_rdata(name.clone(), 60, elsewhere));
            let _ = socket.send_to(&forged.to_vec().unwrap(), peer);
            return answer(socket, peer, message, *reply, name, kind);
        }
        Reply::Alias(of, addresses) => {
            let of = Name::from_ascii(of).unwrap();
            let alias = RData::CNAME(CNAME(of.clone()));
            message
                .answers
                .push(Record::from_rdata(name.clone(), 60, alias));
            return answer(
                socket,
                peer,
                message,
                Reply::Addresses(addresses, 60),
                &of,
                kind,
            );
        }
        Reply::NoName => message.metadata.response_code = ResponseCode::NXDomain,
        Reply::Code(code) => message.metadata.response_code = code,
        Reply::Addresses(addresses, ttl) => {
            for address in addresses {
                if (kind == RecordType::A) == address.is_ipv4() {
                    let data = RData::from(address);
                    message
                        .answers
                        .push(Record::from_rdata(name.clone(), ttl, data));
                }
            }
        }
    }
    let _ = socket.send_to(&message.to_vec().unwrap(), peer);
}
