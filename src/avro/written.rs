//! How logical types are written in JSON, and read back: each digit of the datum, no more and no fewer.
//!
//! What has no such form (a year beyond 9999, more digits than its schema allows) is refused.

use super::Refused;
use super::schema::Unit;
use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, Time};
use num_bigint::BigInt;

const NANOS_PER_DAY: i128 = 86_400_000_000_000;

/// Bytes of a decimal: twice what the digits of a schema can need, as writing them out is quadratic.
const DECIMAL_MAX: usize = 1_024;

impl Unit {
    fn nanos(self) -> i128 {
        match self {
            Unit::Millis => 1_000_000,
            Unit::Micros => 1_000,
            Unit::Nanos => 1,
        }
    }

    fn digits(self) -> i16 {
        match self {
            Unit::Millis => 3,
            Unit::Micros => 6,
            Unit::Nanos => 9,
        }
    }

    /// The units in so many nanoseconds; what is finer than one is no rounding of ours to make.
    fn of(self, nanos: i128) -> Result<i64, Refused> {
        if nanos % self.nanos() != 0 {
            return Err(Refused::new(format!("has more than {} digits behind the second", self.digits())));
        }
        i64::try_from(nanos / self.nanos()).map_err(|_| Refused::new("is too far from 1970 for its type"))
    }
}

fn epoch() -> DateTime {
    DateTime::constant(1970, 1, 1, 0, 0, 0, 0)
}

fn since_epoch(at: DateTime) -> i128 {
    at.duration_since(epoch()).as_nanos()
}

pub(super) fn date(days: i32) -> Result<String, Refused> {
    let date = epoch().date().checked_add(SignedDuration::from_hours(24 * i64::from(days)));
    date.map(|d| d.to_string()).map_err(|_| Refused::new("is a day that no calendar of four digits has"))
}

pub(super) fn read_date(text: &str) -> Result<i32, Refused> {
    let date: Date = text.parse().map_err(|_| Refused::new("should be a date, as 2026-11-26"))?;
    let days = since_epoch(date.to_datetime(Time::midnight())) / NANOS_PER_DAY;
    i32::try_from(days).map_err(|_| Refused::new("is too far from 1970 for its type"))
}

pub(super) fn time(count: i64, unit: Unit) -> Result<String, Refused> {
    let nanos = i128::from(count) * unit.nanos();
    if !(0..NANOS_PER_DAY).contains(&nanos) {
        return Err(Refused::new("is no time of a day"));
    }
    let at = after_epoch(nanos).ok_or_else(|| Refused::new("is no time of a day"))?;
    Ok(clock(at, unit))
}

pub(super) fn read_time(text: &str, unit: Unit) -> Result<i64, Refused> {
    let time: Time = text.parse().map_err(|_| Refused::new("should be a time of day, as 13:05:00.250"))?;
    unit.of(since_epoch(epoch().date().to_datetime(time)))
}

pub(super) fn timestamp(count: i64, unit: Unit, local: bool) -> Result<String, Refused> {
    let at = after_epoch(i128::from(count) * unit.nanos())
        .ok_or_else(|| Refused::new("is a time that no calendar of four digits has"))?;
    let zone = if local { "" } else { "Z" };
    Ok(format!("{}T{}{zone}", at.date(), clock(at, unit)))
}

pub(super) fn read_timestamp(text: &str, unit: Unit, local: bool) -> Result<i64, Refused> {
    let wrong = || {
        let form = if local { "2026-11-26T13:05:00.250" } else { "2026-11-26T13:05:00.250Z" };
        Refused::new(format!("should be a time, as {form}"))
    };
    // The calendar's last hours are no timestamps of the library: they lie in other zones' next year.
    let bare = if local { Some(text) } else { text.strip_suffix(['Z', 'z']) };
    let nanos = match bare {
        Some(bare) if bare.contains(['+', '[', 'Z', 'z']) => return Err(wrong()),
        Some(bare) => since_epoch(bare.parse::<DateTime>().map_err(|_| wrong())?),
        None => text.parse::<jiff::Timestamp>().map_err(|_| wrong())?.as_nanosecond(),
    };
    unit.of(nanos)
}

fn after_epoch(nanos: i128) -> Option<DateTime> {
    let (seconds, rest) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let by = SignedDuration::new(i64::try_from(seconds).ok()?, i32::try_from(rest).ok()?);
    epoch().checked_add(by).ok()
}

fn clock(at: DateTime, unit: Unit) -> String {
    let fraction = i128::from(at.subsec_nanosecond()) / unit.nanos();
    let digits = usize::from(unit.digits().unsigned_abs());
    format!("{:02}:{:02}:{:02}.{fraction:0digits$}", at.hour(), at.minute(), at.second())
}

/// `unscaled`: two's complement, big-endian, never empty.
pub(super) fn decimal(unscaled: &[u8], precision: usize, scale: usize) -> Result<String, Refused> {
    if unscaled.is_empty() || unscaled.len() > DECIMAL_MAX {
        return Err(Refused::new(format!("is no decimal of {precision} digits")));
    }
    let number = BigInt::from_signed_bytes_be(unscaled);
    let negative = number < BigInt::ZERO;
    let digits = number.magnitude().to_string();
    if digits.len() > precision {
        return Err(Refused::new(format!("has more than the {precision} digits of its type")));
    }
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    let sign = if negative { "-" } else { "" };
    let point = if scale == 0 { "" } else { "." };
    Ok(format!("{sign}{whole}{point}{fraction}"))
}

/// The unscaled value, as few bytes as it needs.
pub(super) fn read_decimal(text: &str, precision: usize, scale: usize) -> Result<Vec<u8>, Refused> {
    let wrong = || Refused::new("should be a decimal number, as 12.50");
    let (sign, bare) = text.strip_prefix('-').map_or(("", text), |bare| ("-", bare));
    let (whole, fraction) = bare.split_once('.').unwrap_or((bare, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || text.len() > 2 * precision + 64 {
        return Err(wrong());
    }
    // Zeros behind the last digit that counts say nothing.
    let fraction = if fraction.len() > scale {
        let (kept, rest) = fraction.split_at(scale);
        if rest.bytes().any(|b| b != b'0') {
            return Err(Refused::new(format!("has more than {scale} digits behind the point")));
        }
        kept
    } else {
        fraction
    };
    let all = format!("{sign}{whole}{fraction:0<scale$}");
    let number: BigInt = all.parse().map_err(|_| wrong())?;
    if number.magnitude().to_string().len() > precision {
        return Err(Refused::new(format!("has more than the {precision} digits of its type")));
    }
    Ok(number.to_signed_bytes_be())
}
