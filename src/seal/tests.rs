//! Records open at their place and nowhere else: committed vectors, then properties.

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Vectors {
    keyring: String,
    opens: Vec<Vector>,
    must_fail: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    why: String,
    store: StoreId,
    table: String,
    key: String,
    generation: i64,
    sealed: String,
    plain: Option<String>,
    error: Option<String>,
}

impl Vectors {
    fn load() -> Self {
        serde_json::from_str(include_str!("vectors.json")).unwrap()
    }

    fn open(&self, vector: &Vector) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let keyring = Keyring::from_bytes(&unhex(&self.keyring)).unwrap();
        let table: &'static str = vector.table.clone().leak();
        let place = Place { table, key: &vector.key, generation: vector.generation };
        Sealer::new(vector.store.clone(), keyring).open(&place, &unhex(&vector.sealed))
    }
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.is_ascii(), "hex");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn sealer() -> Sealer {
    Sealer::new("store-1".parse().unwrap(), Keyring::generate())
}

const HERE: Place<'static> = Place { table: "connections", key: "acme/service_user", generation: 7 };

#[test]
fn records_of_an_independent_implementation_open() {
    let vectors = Vectors::load();
    assert!(!vectors.opens.is_empty());
    for vector in &vectors.opens {
        let plain = unhex(vector.plain.as_ref().unwrap());
        let opened = vectors.open(vector);
        assert_eq!(opened.as_deref(), Ok(&plain), "{}", vector.why);
    }
}

#[test]
fn a20_records_that_were_moved_or_changed_do_not_open() {
    let vectors = Vectors::load();
    assert!(30 <= vectors.must_fail.len());
    for vector in &vectors.must_fail {
        let error = match vectors.open(vector) {
            Ok(_) => "opened",
            Err(SealError::Damaged) => "damaged",
            Err(SealError::UnknownKey(_)) => "unknown_key",
            Err(SealError::Format) => "format",
        };
        assert_eq!(Some(error), vector.error.as_deref(), "{}", vector.why);
    }
}

#[test]
fn a20_a_record_of_one_connection_does_not_open_as_another() {
    let sealer = sealer();
    let record = sealer.seal(&HERE, b"grant");
    let there = Place { key: "acme/developer/ana", ..HERE };
    assert_eq!(sealer.open(&there, &record), Err(SealError::Damaged));
}

#[test]
fn a21_a_record_with_an_edited_generation_does_not_open() {
    let sealer = sealer();
    let record = sealer.seal(&HERE, b"grant");
    let edited = Place { generation: 8, ..HERE };
    assert_eq!(sealer.open(&edited, &record), Err(SealError::Damaged));
}

#[test]
fn a17_a_sealed_record_shows_nothing_of_its_text() {
    let sealer = sealer();
    let record = sealer.seal(&HERE, b"canary");
    let shows = |bytes: &[u8]| bytes.windows(6).any(|window| window == b"canary");
    assert!(!shows(&record));
    assert!(shows(&sealer.open(&HERE, &record).unwrap()), "the search itself finds nothing");
    assert_ne!(sealer.seal(&HERE, b"canary"), record, "a nonce was used twice");
}

#[test]
fn an_announced_key_opens_at_once_and_seals_when_active() {
    let mut keyring = Keyring::generate();
    let old = Sealer::new("store-1".parse().unwrap(), Keyring::from_bytes(&keyring.to_bytes()).unwrap());
    let new_id = keyring.announce().unwrap();
    let announced =
        Sealer::new("store-1".parse().unwrap(), Keyring::from_bytes(&keyring.to_bytes()).unwrap());
    assert_eq!(announced.active_key(), old.active_key());

    assert!(keyring.activate(&new_id));
    let new = Sealer::new("store-1".parse().unwrap(), keyring);

    assert_eq!(new.active_key(), &new_id);
    assert_eq!(announced.open(&HERE, &new.seal(&HERE, b"x")).unwrap().as_slice(), b"x");
    assert_eq!(new.open(&HERE, &old.seal(&HERE, b"x")).unwrap().as_slice(), b"x");
    assert_eq!(old.open(&HERE, &new.seal(&HERE, b"x")), Err(SealError::UnknownKey(new_id)));
}

#[test]
fn a_keyring_survives_its_bytes_and_stays_within_its_limit() {
    let mut keyring = Keyring::generate();
    while keyring.announce().is_some() {}
    let last = keyring.ids().last().unwrap().clone();
    assert!(keyring.activate(&last));
    assert!(!keyring.activate(&"unknown".parse().unwrap()));

    let read = Keyring::from_bytes(&keyring.to_bytes()).unwrap();

    assert!(read.ids().eq(keyring.ids()));
    assert_eq!(read.active(), &last);
}

#[test]
fn f05_a_keyring_with_a_changed_key_is_refused_by_its_commitment() {
    let keyring = Keyring::generate();
    let bytes = keyring.to_bytes();
    let mut changed = bytes.to_vec();
    changed[3 + 1 + 16] ^= 1;
    let refused = Keyring::from_bytes(&changed).unwrap_err();
    assert_eq!(refused, KeyringError::Commitment(keyring.active().clone()));

    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        assert!(Keyring::from_bytes(&changed).is_err(), "byte {at}");
        assert!(Keyring::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
    }
}

/// P1: no format of a keyring shows a key.
#[test]
fn a_keyring_does_not_show_itself() {
    let vectors = Vectors::load();
    let keyring = Keyring::from_bytes(&unhex(&vectors.keyring)).unwrap();
    assert_eq!(
        format!("{keyring:?}"),
        r#"Keyring { ids: ["0011223344556677", "8899aabbccddeeff"], active: "8899aabbccddeeff", .. }"#
    );
}

proptest! {
    #[test]
    fn what_was_sealed_opens_and_no_flipped_bit_goes_unnoticed(
        plain in proptest::collection::vec(any::<u8>(), 0..300),
        key in "[a-z/@.]{0,40}",
        generation in any::<i64>(),
        at in any::<proptest::sample::Index>(),
        bit in 0..8,
    ) {
        let sealer = sealer();
        let place = Place { table: "connections", key: &key, generation };
        let mut sealed = sealer.seal(&place, &plain);
        let opened = sealer.open(&place, &sealed).unwrap();
        prop_assert_eq!(opened.as_slice(), plain.as_slice());

        let at = at.index(sealed.len());
        sealed[at] ^= 1u8 << bit;
        prop_assert!(sealer.open(&place, &sealed).is_err(), "byte {}", at);
        prop_assert!(sealer.open(&place, &sealed[..at]).is_err(), "cut at {}", at);
    }
}
