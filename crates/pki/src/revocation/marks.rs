//! Marks of CRLs, as a service keeps them from one validation to the next.

use super::CrlMark;

/// Series of CRLs that are remembered.
const MAX_SERIES: usize = 1024;

/// How far series of CRLs have come, so that an older CRL is told; bounded.
#[derive(Clone, Debug, Default)]
pub struct CrlMarks(Vec<CrlMark>);

impl CrlMarks {
    /// Keeps what a validation proved. A series that is known goes on when all places are taken.
    pub fn keep(&mut self, marks: &[CrlMark]) {
        let rank = |mark: &CrlMark| (mark.number.len(), mark.number.clone());
        for mark in marks.iter().take(MAX_SERIES) {
            let room = self.0.len() < MAX_SERIES;
            match self.0.iter_mut().find(|one| one.series == mark.series) {
                Some(one) if rank(one) < rank(mark) => one.clone_from(mark),
                Some(_) => {}
                None if room => self.0.push(mark.clone()),
                None => {}
            }
        }
    }

    /// All of them, for [`crate::Evidence::remember`].
    #[must_use]
    pub fn all(&self) -> &[CrlMark] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_goes_forward_only_and_there_are_not_too_many() {
        let mark = |n: u16, number: &[u8]| {
            let mut series = [0; 32];
            series[..2].copy_from_slice(&n.to_be_bytes());
            CrlMark { series, number: number.to_vec() }
        };
        let mut marks = CrlMarks::default();
        marks.keep(&[mark(0, &[2]), mark(0, &[1])]);
        assert_eq!(marks.all(), [mark(0, &[2])]);
        marks.keep(&[mark(0, &[1, 0])]);
        assert_eq!(marks.all(), [mark(0, &[1, 0])]);
        for n in 0..2000 {
            marks.keep(&[mark(n, &[3, 0])]);
        }
        assert_eq!(marks.all().len(), MAX_SERIES);
        assert_eq!(marks.all()[0], mark(0, &[3, 0]));
    }
}
