//! How sure a model was of what it said.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A probability in ten-thousandths: it prints, compares and hashes the same everywhere. In JSON a number from 0
/// to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Confidence(u16);

impl Confidence {
    pub const CERTAIN: Self = Self(Self::ONE);
    pub const NONE: Self = Self(0);
    /// Facts below it are marked for review where nobody says otherwise.
    pub const DEFAULT_REVIEW_BELOW: Self = Self(5_000);

    const ONE: u16 = 10_000;

    /// Rounds; `None` outside 0 to 1.
    pub fn new(probability: f64) -> Option<Self> {
        (0.0..=1.0).contains(&probability).then(|| Self((probability * f64::from(Self::ONE)).round() as u16))
    }

    /// Of a natural logarithm; what rounding has put above 0 counts as 0.
    pub fn of_log(log: f64) -> Self {
        Self::new(log.min(0.0).exp()).unwrap_or(Self::NONE)
    }

    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / f64::from(Self::ONE)
    }
}

impl std::fmt::Display for Confidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.4}", self.as_f64())
    }
}

impl Serialize for Confidence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_f64())
    }
}

impl<'de> Deserialize<'de> for Confidence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let probability = f64::deserialize(deserializer)?;
        Self::new(probability)
            .ok_or_else(|| serde::de::Error::custom(format!("{probability} is no number from 0 to 1")))
    }
}

/// How sure the model was of one item's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemConfidence {
    /// Of the part that it was least sure of.
    pub least: Confidence,
    /// By JSON pointer into the answer, of the parts that it had a choice about; empty where the answer's entries
    /// carry their own.
    pub fields: BTreeMap<String, Confidence>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_short_number_in_json_and_nothing_outside_0_to_1() {
        assert_eq!(serde_json::to_string(&Confidence::new(0.931_25).unwrap()).unwrap(), "0.9313");
        assert_eq!(serde_json::from_str::<Confidence>("1").unwrap(), Confidence::CERTAIN);
        assert_eq!(Confidence::of_log(-0.693_147_18).to_string(), "0.5000");
        assert_eq!(Confidence::of_log(f64::NEG_INFINITY).to_string(), "0.0000");
        for wrong in ["-0.1", "1.2", "\"1\""] {
            assert!(serde_json::from_str::<Confidence>(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Confidence::new(f64::NAN), None);
    }
}
