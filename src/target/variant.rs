//! The kinds of TLS that the server can show, chosen by the name that the client asks for.

/// What a client that asks for `NAME.test` (or `anything.NAME.test`) gets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Variant {
    /// `good`: a valid certificate, as all variants' for their own name, one label before it (`a.good.test`), localhost,
    /// 127.0.0.1 and ::1. Also what a client gets that asks for any other name or none.
    Good,
    /// `expired`: the certificate ended a day ago.
    Expired,
    /// `early`: it begins in a day.
    Early,
    /// `selfsigned`: no authority signed it.
    SelfSigned,
    /// `unknown-ca`: an authority signed it that nobody has heard of.
    UnknownCa,
    /// `wrong`: it is for `other.test`.
    Wrong,
    /// `mtls`: the client must show a certificate of our authority.
    ClientCertificate,
    /// `tls12`: nothing newer than TLS 1.2.
    Tls12,
    /// `tls13`: nothing older than TLS 1.3.
    Tls13,
    /// `h1`: ALPN offers HTTP/1.1 only.
    Http1,
    /// `p384`, `p521`, `rsa`: the key is not P-256.
    Key(KeyKind),
    /// `hang`: the handshake is never answered.
    Hang,
    /// `closed`: the connection closes in answer to the handshake's first message.
    Closed,
    /// `reset`: likewise, with a TCP reset.
    Reset,
    /// `garbage`: the answer is not TLS.
    Garbage,
    /// `ends-in-N-days`.
    EndsIn {
        /// Days from the server's start, at most 10 000.
        days: u32,
    },
}

/// A certificate's key, other than P-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KeyKind {
    /// secp384r1.
    P384,
    /// secp521r1.
    P521,
    /// RSA with 2 048 bits.
    Rsa,
}

/// Names and their variants; `ends-in-N-days` is besides.
const NAMES: &[(&str, Variant)] = &[
    ("good", Variant::Good),
    ("expired", Variant::Expired),
    ("early", Variant::Early),
    ("selfsigned", Variant::SelfSigned),
    ("unknown-ca", Variant::UnknownCa),
    ("wrong", Variant::Wrong),
    ("mtls", Variant::ClientCertificate),
    ("tls12", Variant::Tls12),
    ("tls13", Variant::Tls13),
    ("h1", Variant::Http1),
    ("p384", Variant::Key(KeyKind::P384)),
    ("p521", Variant::Key(KeyKind::P521)),
    ("rsa", Variant::Key(KeyKind::Rsa)),
    ("hang", Variant::Hang),
    ("closed", Variant::Closed),
    ("reset", Variant::Reset),
    ("garbage", Variant::Garbage),
];
const DAYS_MAX: u32 = 10_000;

impl Variant {
    /// By its name, without `.test`.
    pub fn named(name: &str) -> Option<Self> {
        if let Some((_, variant)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Some(*variant);
        }
        let days = name.strip_prefix("ends-in-")?.strip_suffix("-days")?;
        let days = days.parse().ok().filter(|days| *days <= DAYS_MAX)?;
        Some(Self::EndsIn { days })
    }

    /// By the name that a client asks for.
    pub(super) fn of_server_name(name: Option<&str>) -> Self {
        let label = name
            .and_then(|name| name.strip_suffix(".test"))
            .and_then(|name| name.rsplit('.').next());
        label.and_then(Self::named).unwrap_or(Self::Good)
    }

    /// The label that asks for it.
    pub(super) fn label(self) -> Option<String> {
        if let Self::EndsIn { days } = self {
            return Some(format!("ends-in-{days}-days"));
        }
        let (name, _) = NAMES.iter().find(|(_, variant)| *variant == self)?;
        Some((*name).to_owned())
    }

    /// All names, for `--help`.
    pub fn names() -> String {
        let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
        format!("{}, ends-in-N-days", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_label_before_test_decides() {
        let of = |name| Variant::of_server_name(Some(name));
        assert_eq!(of("expired.test"), Variant::Expired);
        assert_eq!(of("e17.expired.test"), Variant::Expired);
        assert_eq!(of("ends-in-10-days.test"), Variant::EndsIn { days: 10 });
        for name in [
            "localhost",
            "unheard-of.test",
            "expired.example",
            "ends-in-x-days.test",
        ] {
            assert_eq!(of(name), Variant::Good, "{name}");
        }
        assert_eq!(Variant::of_server_name(None), Variant::Good);
    }
}
