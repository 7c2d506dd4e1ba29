//! Distributions of single requests: histograms, and the quantiles that a sample supports.
//!
//! Histograms are HDR histograms in the V2 serialization (<https://github.com/HdrHistogram/HdrHistogram_rust>), base64 in
//! records. A record may come from anyone, so its header is checked before the decoder allocates anything by it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};

/// Below this number of requests there is no 99th percentile: it would rest on fewer than 100 requests.
pub const P99_REQUESTS: u64 = 10_000;

/// Digits of precision that a histogram in a record may have: 3 are plenty for nanoseconds (0.1 %).
const DIGITS: u32 = 3;

/// The largest value that a histogram in a record may track: 1000 s in nanoseconds.
const LARGEST: u64 = 1_000_000_000_000;

/// Length of the V2 header: cookie, payload length, normalizing offset, digits (4 bytes each), lowest and highest value and
/// conversion ratio (8 bytes each).
const HEADER: usize = 40;

/// First four bytes of a V2 histogram: encoding version 3, word size 1.
const COOKIE: u32 = 0x1c84_9303 | 0x10;

/// Why a text is not a histogram.
#[derive(Debug, thiserror::Error)]
pub enum HistogramError {
    /// Not base64.
    #[error("the histogram is not base64")]
    Base64(#[source] base64::DecodeError),
    /// The header is not one that a record may have.
    #[error("the histogram's header is wrong: {0}")]
    Header(&'static str),
    /// The body does not decode.
    #[error("the histogram does not decode")]
    Body(#[source] hdrhistogram::serialization::DeserializeError),
}

/// A histogram of nanoseconds as records hold it: up to 1000 s, 3 digits.
pub fn new_histogram() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, LARGEST, DIGITS as u8) {
        Ok(histogram) => histogram,
        Err(error) => unreachable!("the bounds are constants and valid: {error}"),
    }
}

/// The text of a histogram for a record.
///
/// # Panics
/// Where one value was counted more than 2^63 times.
pub fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    match V2Serializer::new().serialize(histogram, &mut bytes) {
        Ok(_) => STANDARD.encode(bytes),
        Err(error) => panic!("serialize a histogram: {error}"),
    }
}

/// The histogram in a record.
///
/// # Errors
/// Where the text is not base64 of a V2 histogram of at most 3 digits and 1000 s.
pub fn decode(text: &str) -> Result<Histogram<u64>, HistogramError> {
    let bytes = STANDARD.decode(text).map_err(HistogramError::Base64)?;
    let word = |at: usize| bytes.get(at..at + 4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    let check = |holds: bool, what| if holds { Ok(()) } else { Err(HistogramError::Header(what)) };
    let long = |at: usize| word(at).zip(word(at + 4)).map(|(high, low)| u64::from(high) << 32 | u64::from(low));
    check(word(0) == Some(COOKIE), "its cookie is not that of version 2")?;
    check(word(4).is_some_and(|length| length as usize == bytes.len().saturating_sub(HEADER)), "its length")?;
    check(word(8) == Some(0), "its normalizing offset is not 0")?;
    check(word(12).is_some_and(|digits| digits <= DIGITS), "it has more than 3 digits")?;
    check(long(16) == Some(1), "its lowest value is not 1")?;
    check(long(24).is_some_and(|highest| highest <= LARGEST), "it tracks more than 1000 s")?;
    Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(HistogramError::Body)
}

/// Adds one histogram to another; both come from [`new_histogram`] or [`decode`].
pub fn merge(into: &mut Histogram<u64>, from: &Histogram<u64>) {
    // `decode` lets no value through that lies above the largest one of `new_histogram`.
    match into.add(from) {
        Ok(()) => {}
        Err(error) => unreachable!("both have the same largest value: {error:?}"),
    }
}

/// Quantiles that so many requests support: p50 and p90 always, p99 from [`P99_REQUESTS`] up.
pub fn supported_quantiles(requests: u64) -> &'static [f64] {
    match requests {
        0 => &[],
        P99_REQUESTS.. => &[0.5, 0.9, 0.99],
        _ => &[0.5, 0.9],
    }
}
