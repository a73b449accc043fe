//! Messages of DNS (RFC 1035, RFC 6891), as far as questions are read and answers written. Names in questions are not
//! compressed, and no compressed name is followed anywhere.

/// Response codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rcode {
    NoError,
    FormErr,
    ServFail,
    NxDomain,
    NotImp,
    Refused,
    /// A version of EDNS that is not known; its upper bits are in the option.
    BadVers,
}

impl Rcode {
    /// The lower four bits, and the upper eight.
    const fn parts(self) -> (u8, u8) {
        match self {
            Self::NoError => (0, 0),
            Self::FormErr => (1, 0),
            Self::ServFail => (2, 0),
            Self::NxDomain => (3, 0),
            Self::NotImp => (4, 0),
            Self::Refused => (5, 0),
            Self::BadVers => (0, 1),
        }
    }
}

/// Types of records that are answered.
pub(crate) const A: u16 = 1;
pub(crate) const SOA: u16 = 6;
pub(crate) const PTR: u16 = 12;
pub(crate) const OPT: u16 = 41;
/// The class of all that is answered.
pub(crate) const IN: u16 = 1;

/// The size of the header, and of what follows a name in a question and in a record, in bytes.
pub(crate) const HEADER: usize = 12;
const QUESTION_REST: usize = 4;
const RECORD_REST: usize = 10;

/// The longest name and label, in bytes.
const NAME_MAX: usize = 255;
const LABEL_MAX: u8 = 63;

/// The most additional records of a question: the options of EDNS, and a signature or a cookie.
const ADDITIONAL_MAX: u16 = 4;

/// What a client without EDNS accepts over UDP, and what is offered with EDNS, in bytes: it fits every link.
const SIZE_MIN: u16 = 512;
const SIZE_OFFERED: u16 = 1_232;

/// Bits of the third and fourth byte.
const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const AUTHORITATIVE: u8 = 0x04;
const TRUNCATED: u8 = 0x02;
const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;
const CHECKING_DISABLED: u8 = 0x10;
const RCODE: u8 = 0x0f;

/// A pointer to the name of the question.
const TO_QUESTION: u16 = 0xc000 | 12;

/// A message that may be answered.
#[derive(Debug)]
pub(crate) enum Message<'a> {
    Query(Query<'a>),
    /// Its answer, which is an error.
    Faulty(Vec<u8>),
}

/// A question.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    bytes: &'a [u8],
    head: [u8; 4],
    pub(crate) name: Name,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    /// Where the question ends.
    end: usize,
    edns: Option<Edns>,
}

/// The options of EDNS, as far as they are read.
#[derive(Clone, Copy, Debug)]
struct Edns {
    size: u16,
    version: u8,
    wants_signatures: bool,
}

/// A name in lower case, in wire format, with the offsets of its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    wire: Vec<u8>,
    labels: Vec<u8>,
}

impl Name {
    /// Reads the name that these bytes begin with.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (mut labels, mut at) = (Vec::new(), 0);
        loop {
            let length = *bytes.get(at)?;
            if length == 0 {
                let wire = bytes.get(..=at)?.to_ascii_lowercase();
                return (wire.len() <= NAME_MAX).then_some(Self { wire, labels });
            }
            // More is a pointer, or reserved.
            if length > LABEL_MAX || at >= NAME_MAX {
                return None;
            }
            labels.push(u8::try_from(at).ok()?);
            at += 1 + usize::from(length);
        }
    }

    /// How many labels it has.
    pub(crate) fn count(&self) -> usize {
        self.labels.len()
    }

    /// Returns a label by its place from the end.
    pub(crate) fn label_from_end(&self, place: usize) -> Option<&[u8]> {
        let at = usize::from(*self.labels.get(self.count().checked_sub(place + 1)?)?);
        let length = usize::from(*self.wire.get(at)?);
        self.wire.get(at + 1..at + 1 + length)
    }

    /// Returns where the name that its last labels are begins.
    pub(crate) fn offset_from_end(&self, count: usize) -> Option<usize> {
        match self.count().checked_sub(count)? {
            first if first == self.count() => self.wire.len().checked_sub(1),
            first => self.labels.get(first).map(|at| usize::from(*at)),
        }
    }

    /// Whether the last labels are these, the last one last.
    pub(crate) fn ends_with(&self, labels: &[&str]) -> bool {
        let mut places = labels.iter().rev().enumerate();
        places.all(|(place, label)| self.label_from_end(place) == Some(label.as_bytes()))
    }
}

/// Returns where the record that begins at this offset has its type. Its name is skipped.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length if length <= LABEL_MAX => at += 1 + usize::from(length),
            length if length >= 0xc0 => return Some(at + 2),
            _ => return None,
        }
    }
}

impl<'a> Message<'a> {
    /// Reads a message. `None` if it must not be answered: it is incomplete, or an answer itself.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER>()?;
        let [i, d, flags, more, q1, q2, a1, a2, n1, n2, r1, r2] = *header;
        if flags & RESPONSE != 0 {
            return None;
        }
        let head = [i, d, flags, more];
        if flags & OPCODE != 0 {
            return Some(Self::Faulty(without_question(head, Rcode::NotImp)));
        }
        let counts = [[q1, q2], [a1, a2], [n1, n2]].map(u16::from_be_bytes);
        let additional = u16::from_be_bytes([r1, r2]);
        let query = (counts == [1, 0, 0] && additional <= ADDITIONAL_MAX)
            .then(|| Query::read(bytes, head, additional))
            .flatten();
        let Some(query) = query else { return Some(Self::Faulty(without_question(head, Rcode::FormErr))) };
        if query.edns.is_some_and(|edns| edns.version != 0) {
            return Some(Self::Faulty(query.error(Rcode::BadVers)));
        }
        Some(Self::Query(query))
    }
}

impl<'a> Query<'a> {
    fn read(bytes: &'a [u8], head: [u8; 4], additional: u16) -> Option<Self> {
        let name = Name::read(bytes.get(HEADER..)?)?;
        let rest = HEADER + name.wire.len();
        let [t1, t2, c1, c2] = *bytes.get(rest..)?.first_chunk::<QUESTION_REST>()?;
        let (kind, class) = (u16::from_be_bytes([t1, t2]), u16::from_be_bytes([c1, c2]));
        let end = rest + QUESTION_REST;
        let (mut at, mut edns) = (end, None);
        for _ in 0..additional {
            let is_root = bytes.get(at) == Some(&0);
            let rest = skip_name(bytes, at)?;
            let [t1, t2, s1, s2, _, version, flags, _, l1, l2] = *bytes.get(rest..)?.first_chunk::<RECORD_REST>()?;
            at = rest + RECORD_REST + usize::from(u16::from_be_bytes([l1, l2]));
            if u16::from_be_bytes([t1, t2]) == OPT {
                let size = u16::from_be_bytes([s1, s2]);
                let found = Edns { size, version, wants_signatures: flags & 0x80 != 0 };
                if !is_root || edns.replace(found).is_some() {
                    return None;
                }
            }
        }
        (at == bytes.len()).then_some(Self { bytes, head, name, kind, class, end, edns })
    }

    /// The bytes of the question.
    pub(crate) fn question(&self) -> &'a [u8] {
        self.bytes.get(HEADER..self.end).unwrap_or_default()
    }

    /// All of the message.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// How long the answer over UDP may be, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.edns.map_or(SIZE_MIN, |edns| edns.size.max(SIZE_MIN)).into()
    }

    /// Returns an answer without records.
    pub(crate) fn error(&self, rcode: Rcode) -> Vec<u8> {
        self.answer(Answer { rcode, ..Answer::default() })
    }

    /// Returns an answer that says that there is more, for those who ask again over TCP.
    pub(crate) fn truncated(&self) -> Vec<u8> {
        self.answer(Answer { is_truncated: true, relays: true, ..Answer::default() })
    }

    /// Returns an answer to the question.
    pub(crate) fn answer(&self, answer: Answer<'_>) -> Vec<u8> {
        let Answer { rcode, is_authoritative, is_truncated, relays, record, soa } = answer;
        let mut bytes = header(self.head, rcode);
        if let [_, _, flags, more, ..] = bytes.as_mut_slice() {
            *flags |= if is_authoritative { AUTHORITATIVE } else { 0 } | if is_truncated { TRUNCATED } else { 0 };
            *more |= if relays { RECURSION_AVAILABLE } else { 0 };
        }
        let counts = [1, record.is_some().into(), soa.is_some_and(|soa| !soa.is_answer).into()];
        let counts = counts.into_iter().chain([self.edns.is_some().into()]);
        let mut counts: Vec<u16> = counts.collect();
        if let ([_, answers, ..], Some(Soa { is_answer: true, .. })) = (counts.as_mut_slice(), soa) {
            *answers += 1;
        }
        counts.iter().for_each(|count| bytes.extend(count.to_be_bytes()));
        bytes.extend(self.question());
        if let Some(Record { kind, ttl, data }) = record {
            push_record(&mut bytes, (TO_QUESTION, kind, ttl), &data);
        }
        if let Some(Soa { offset, ttl, .. }) = soa {
            let owner = 0xc000 | u16::try_from(HEADER + offset).unwrap_or(0x3fff);
            push_record(&mut bytes, (owner, SOA, ttl), &soa_data(owner, ttl));
        }
        if let Some(Edns { wants_signatures, .. }) = self.edns {
            let (_, upper) = rcode.parts();
            bytes.push(0);
            bytes.extend(OPT.to_be_bytes());
            bytes.extend(SIZE_OFFERED.to_be_bytes());
            bytes.extend([upper, 0, if wants_signatures { 0x80 } else { 0 }, 0, 0, 0]);
        }
        bytes
    }
}

/// What an answer has.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) rcode: Rcode,
    pub(crate) is_authoritative: bool,
    pub(crate) is_truncated: bool,
    /// Other names are answered, too.
    pub(crate) relays: bool,
    /// A record of the name that was asked for.
    pub(crate) record: Option<Record<'a>>,
    pub(crate) soa: Option<Soa>,
}

impl Default for Answer<'_> {
    fn default() -> Self {
        let [is_authoritative, is_truncated, relays] = [false; 3];
        Self { rcode: Rcode::NoError, is_authoritative, is_truncated, relays, record: None, soa: None }
    }
}

/// A record.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) kind: u16,
    /// In seconds.
    pub(crate) ttl: u32,
    pub(crate) data: std::borrow::Cow<'a, [u8]>,
}

/// The record of a zone that says how long its answers are valid, in particular that there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Soa {
    /// Where the zone's name begins in the name that was asked for.
    pub(crate) offset: usize,
    /// In seconds.
    pub(crate) ttl: u32,
    /// It was asked for.
    pub(crate) is_answer: bool,
}

/// Returns the header without counts.
fn header([i, d, flags, more]: [u8; 4], rcode: Rcode) -> Vec<u8> {
    let (lower, _) = rcode.parts();
    let flags = RESPONSE | flags & (OPCODE | RECURSION_DESIRED);
    vec![i, d, flags, more & CHECKING_DISABLED | lower]
}

fn without_question(head: [u8; 4], rcode: Rcode) -> Vec<u8> {
    let mut bytes = header(head, rcode);
    bytes.resize(HEADER, 0);
    bytes
}

fn push_record(bytes: &mut Vec<u8>, (owner, kind, ttl): (u16, u16, u32), data: &[u8]) {
    bytes.extend(owner.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(IN.to_be_bytes());
    bytes.extend(ttl.to_be_bytes());
    bytes.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(data);
}

/// Returns the data of a SOA record: the zone itself as the primary server, `hostmaster` in it, and numbers that only
/// other servers of the zone would read, apart from the last, how long it is known that a name does not exist.
fn soa_data(owner: u16, ttl: u32) -> Vec<u8> {
    let mut data = owner.to_be_bytes().to_vec();
    data.extend(b"\x0ahostmaster");
    data.extend(owner.to_be_bytes());
    for number in [1, 3600, 600, 86_400, ttl] {
        data.extend(number.to_be_bytes());
    }
    data
}

/// Whether this is an answer to a question that was sent with this id, whatever it says.
pub(crate) fn answers(bytes: &[u8], id: [u8; 2], question: &[u8]) -> bool {
    let Some(([i, d, flags, _, q1, q2, ..], rest)) = bytes.split_first_chunk::<HEADER>() else { return false };
    let is_asked = || {
        let (name, kind) = question.split_last_chunk::<QUESTION_REST>()?;
        let (asked, of_kind) = rest.get(..question.len())?.split_last_chunk::<QUESTION_REST>()?;
        Some(kind == of_kind && name.eq_ignore_ascii_case(asked))
    };
    [*i, *d] == id
        && flags & (RESPONSE | OPCODE) == RESPONSE
        && u16::from_be_bytes([*q1, *q2]) == 1
        && is_asked() == Some(true)
}

/// The response code of an answer, its lower four bits.
pub(crate) fn rcode(bytes: &[u8]) -> u8 {
    bytes.get(3).map_or(0, |more| more & RCODE)
}

/// Sets the id of a message.
pub(crate) fn set_id(bytes: &mut [u8], id: [u8; 2]) {
    if let Some(first) = bytes.first_chunk_mut::<2>() {
        *first = id;
    }
}

/// The id of a message.
pub(crate) fn id(bytes: &[u8]) -> [u8; 2] {
    bytes.first_chunk().copied().unwrap_or_default()
}
