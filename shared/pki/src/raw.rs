//! Cuts DER into slices of the input, so that what was received is kept byte for byte.
//!
//! Never decodes and encodes again: a round trip through typed values is not the identity.

use der::{Any, Decode, Encode, Header, Reader, SliceReader, Tag};

/// The elements inside one constructed element that fills `input` completely, each with its own tag and length.
pub(crate) fn children(input: &[u8], tag: Tag) -> der::Result<Vec<&[u8]>> {
    elements(content(input, tag)?)
}

/// The value bytes of the one element with `tag` that fills `input` completely.
pub(crate) fn content(input: &[u8], tag: Tag) -> der::Result<&[u8]> {
    let mut reader = SliceReader::new(input)?;
    let header = Header::decode(&mut reader)?;
    header.tag.assert_eq(tag)?;
    let value = reader.read_slice(header.length)?;
    reader.finish(value)
}

/// The tag of the element at the start of `input`.
pub(crate) fn tag_of(input: &[u8]) -> der::Result<Tag> {
    SliceReader::new(input)?.peek_tag()
}

/// One element made of `tag` and `value`.
pub(crate) fn element(tag: Tag, value: &[u8]) -> der::Result<Vec<u8>> {
    Any::new(tag, value)?.to_der()
}

fn elements(input: &[u8]) -> der::Result<Vec<&[u8]>> {
    let mut reader = SliceReader::new(input)?;
    let mut found = Vec::new();
    while !reader.is_finished() {
        found.push(reader.tlv_bytes()?);
    }
    Ok(found)
}
