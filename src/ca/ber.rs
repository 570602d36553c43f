//! BER (X.690 8) written again with definite lengths. CMS is a BER structure (RFC 5652 5.1): libraries that stream it write
//! constructed values of indefinite length, whose end is marked by two zero bytes. What is within a certificate is DER and
//! comes out as it went in.

/// Values within values, at most. A certificate in a CMS message has some 15.
const DEEPEST: usize = 32;
const CUT_OFF: &str = "it is cut off";

/// The one value in `ber`, with the shortest definite lengths everywhere. What is DER already stays the same.
///
/// # Errors
/// What is wrong, for what is no value, more than one, cut off, or nested deeper than [`DEEPEST`].
pub(super) fn definite(ber: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut rest = ber;
    let mut out = Vec::with_capacity(ber.len());
    value(&mut rest, &mut out, 0)?;
    if rest.is_empty() { Ok(out) } else { Err("something follows its end") }
}

/// Moves one value from `rest` to `out`.
fn value(rest: &mut &[u8], out: &mut Vec<u8>, depth: usize) -> Result<(), &'static str> {
    let tag = tag(rest)?;
    let constructed = tag.first().is_some_and(|byte| byte & 0x20 != 0);
    out.extend_from_slice(tag);
    let length = length(rest)?;
    if !constructed {
        let length = length.ok_or("a primitive value has no length")?;
        let content = take(rest, length)?;
        write_length(out, content.len());
        out.extend_from_slice(content);
        return Ok(());
    }
    if depth >= DEEPEST {
        return Err("values are nested too deep");
    }
    let mut content = Vec::new();
    match length {
        Some(length) => {
            let mut within = take(rest, length)?;
            while !within.is_empty() {
                value(&mut within, &mut content, depth + 1)?;
            }
        }
        None => loop {
            if let Some(after) = rest.strip_prefix(&[0, 0]) {
                *rest = after;
                break;
            }
            value(rest, &mut content, depth + 1)?;
        },
    }
    write_length(out, content.len());
    out.extend_from_slice(&content);
    Ok(())
}

/// The bytes of a tag, of any number.
fn tag<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let first = *rest.first().ok_or(CUT_OFF)?;
    let length = if first & 0x1f == 0x1f {
        2 + rest.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count()
    } else {
        1
    };
    take(rest, length)
}

/// None for an indefinite length.
fn length(rest: &mut &[u8]) -> Result<Option<usize>, &'static str> {
    let first = take(rest, 1)?[0];
    match first {
        0x80 => Ok(None),
        0..0x80 => Ok(Some(first.into())),
        0xff => Err("a length is none"),
        _ => {
            let bytes = take(rest, usize::from(first & 0x7f))?;
            let significant = bytes.iter().skip_while(|byte| **byte == 0);
            if significant.clone().count() > 4 {
                return Err("a length is none");
            }
            Ok(Some(significant.fold(0, |length, byte| length << 8 | usize::from(*byte))))
        }
    }
}

fn write_length(out: &mut Vec<u8>, length: usize) {
    if length < 0x80 {
        out.push(length as u8);
        return;
    }
    let bytes = length.to_be_bytes();
    let skip = bytes.iter().take_while(|&&byte| byte == 0).count();
    out.push(0x80 | (bytes.len() - skip) as u8);
    out.extend_from_slice(&bytes[skip..]);
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], &'static str> {
    let (taken, after) = rest.split_at_checked(length).ok_or(CUT_OFF)?;
    *rest = after;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::encode::{SEQUENCE, tlv};
    use proptest::prelude::*;

    #[test]
    fn indefinite_and_long_lengths_become_the_shortest_definite_ones() {
        for (ber, der) in [
            ("30800000", "3000"),
            ("3080a0800401ff0000020105 0000", "3008a0030401ff020105"),
            ("3081030401ff", "30030401ff"),
            ("308400000003040100", "3003040100"),
            ("bf81010103", ""),
            ("9f8101 0103", "9f81010103"),
        ] {
            let bytes = |text: &str| hex::decode(text.replace(' ', "")).unwrap();
            let found = definite(&bytes(ber)).unwrap_or_default();
            assert_eq!(hex::encode(found), der, "{ber}");
        }
    }

    #[test]
    fn what_is_cut_off_or_nested_without_end_is_refused() {
        for ber in ["", "30", "3080", "308000", "3003", "0480", "30ff", "3085010000000000", "30000000"] {
            assert!(definite(&hex::decode(ber).unwrap()).is_err(), "{ber}");
        }
        assert!(definite(&[0x30, 0x80].repeat(500_000)).is_err());
    }

    proptest! {
        #[test]
        fn der_stays_as_it_is(contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..4)) {
            let within: Vec<u8> = contents.iter().flat_map(|content| tlv(4, &[content])).collect();
            let der = tlv(SEQUENCE, &[&tlv(0xa0, &[&tlv(SEQUENCE, &[&within])])]);
            prop_assert_eq!(definite(&der), Ok(der));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let first = definite(&bytes);
            if let Ok(first) = first {
                prop_assert_eq!(definite(&first), Ok(first));
            }
            bytes.splice(0..0, [0x30, 0x80]);
            let _ = definite(&bytes);
        }
    }
}
