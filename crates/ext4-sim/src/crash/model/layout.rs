//! Which sector of a file is where: what collapse and insert move takes all that it ever held with it.

use std::ops::Range;

/// A sector of a file wherever it is.
pub type SectorId = u64;

/// Positions of sectors: pieces of a file, each from a position on, by position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout(Vec<(u64, SectorId)>);

impl Default for Layout {
    fn default() -> Self {
        Self(vec![(0, 0)])
    }
}

impl Layout {
    /// The sector at a position.
    pub fn id(&self, sector: u64) -> SectorId {
        let (from, id) = self.0[self.0.partition_point(|(from, _)| *from <= sector) - 1];
        id + (sector - from)
    }

    /// Where a sector is, if it is in the file.
    pub fn position(&self, id: SectorId) -> Option<u64> {
        self.0.iter().enumerate().find_map(|(index, &(from, first))| {
            let position = from.checked_add(id.checked_sub(first)?)?;
            let end = self.0.get(index + 1).map_or(u64::MAX, |(next, _)| *next);
            (position < end).then_some(position)
        })
    }

    /// Takes sectors out.
    pub fn collapse(&self, range: Range<u64>) -> Self {
        let mut pieces: Vec<_> = self.0.iter().copied().filter(|(from, _)| *from < range.start).collect();
        pieces.push((range.start, self.id(range.end)));
        let behind = self.0.iter().filter(|(from, _)| *from > range.end);
        pieces.extend(behind.map(|(from, id)| (from - (range.end - range.start), *id)));
        Self(pieces)
    }

    /// Puts sectors in that nobody has seen: those from `new` on.
    pub fn insert(&self, range: Range<u64>, new: SectorId) -> Self {
        let mut pieces: Vec<_> = self.0.iter().copied().filter(|(from, _)| *from < range.start).collect();
        pieces.extend([(range.start, new), (range.end, self.id(range.start))]);
        let behind = self.0.iter().filter(|(from, _)| *from > range.start);
        pieces.extend(behind.map(|(from, id)| (from + (range.end - range.start), *id)));
        Self(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_a_vector_of_sectors() {
        let mut random = crate::crash::random::Random(7);
        let (mut layout, mut sectors): (_, Vec<u64>) = (Layout::default(), (0..100).collect());
        for round in 1..200 {
            let start = random.below(90);
            let len = 1 + random.below(8);
            let range = start as u64..(start + len) as u64;
            if random.once_in(2) {
                layout = layout.collapse(range);
                sectors.drain(start..start + len);
                sectors.resize_with(100, || u64::MAX);
            } else {
                let new = round << 32;
                layout = layout.insert(range, new);
                sectors.splice(start..start, new..new + len as u64);
                sectors.truncate(100);
            }
            for (position, &id) in (0..).zip(&sectors).filter(|(_, id)| **id != u64::MAX) {
                assert_eq!((layout.id(position), layout.position(id)), (id, Some(position)));
            }
        }
    }
}
