//! Handles: numbers that name a thing until it is closed, and nothing afterwards.

use slab::Slab;

/// Bits of a handle that say where the thing is; above them is a serial number.
const INDEX_BITS: u32 = 20;
const MAX_SERIAL: u64 = 1 << 32;

/// Which serial numbers a table gives.
#[derive(Debug, Clone, Copy)]
pub enum Parity {
    /// 1, 3, 5, …
    Odd = 1,
    /// 2, 4, 6, …
    Even = 2,
}

/// Things by handle. A handle is an integer below 2^52, and a closed one stays invalid.
pub struct Table<T> {
    entries: Slab<(u64, T)>,
    next_serial: u64,
}

impl<T> Table<T> {
    /// An empty one. Handles of tables of different parity are never the same: a file's is no volume's.
    pub fn new(parity: Parity) -> Self {
        Self { entries: Slab::new(), next_serial: parity as u64 }
    }

    /// Adds a thing; gives it back where there are 2^20 already.
    pub fn insert(&mut self, value: T) -> Result<u64, T> {
        if self.entries.len() >= 1 << INDEX_BITS {
            return Err(value);
        }
        let serial = self.next_serial;
        self.next_serial = if serial + 2 < MAX_SERIAL { serial + 2 } else { 2 - serial % 2 };
        let index = self.entries.insert((serial, value)) as u64;
        Ok(serial << INDEX_BITS | index)
    }

    /// What a handle names.
    pub fn get(&self, handle: u64) -> Option<&T> {
        let (serial, value) = self.entries.get(index(handle))?;
        (*serial == handle >> INDEX_BITS).then_some(value)
    }

    /// What a handle names.
    pub fn get_mut(&mut self, handle: u64) -> Option<&mut T> {
        let (serial, value) = self.entries.get_mut(index(handle))?;
        (*serial == handle >> INDEX_BITS).then_some(value)
    }

    /// Takes what a handle names.
    pub fn remove(&mut self, handle: u64) -> Option<T> {
        self.get(handle)?;
        Some(self.entries.remove(index(handle)).1)
    }

    /// All handles.
    pub fn handles(&self) -> Vec<u64> {
        self.entries.iter().map(|(index, (serial, _))| serial << INDEX_BITS | index as u64).collect()
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

fn index(handle: u64) -> usize {
    (handle & ((1 << INDEX_BITS) - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::{Parity, Table};

    #[test]
    fn a_closed_handle_names_nothing() {
        let mut table = Table::new(Parity::Odd);
        let first = table.insert('a').unwrap();
        assert_eq!(table.remove(first), Some('a'));
        let second = table.insert('b').unwrap();
        assert_ne!(first, second);
        assert_eq!((table.get(first), table.get(second)), (None, Some(&'b')));
        assert_eq!(table.remove(first), None);
        let mut other = Table::new(Parity::Even);
        let handles = [other.insert('c').unwrap(), other.insert('d').unwrap()];
        assert!(!handles.contains(&first) && !handles.contains(&second));
    }
}
