//! Little-endian fields at named offsets.

/// A value with a fixed place in a structure.
pub(crate) trait Field: Sized {
    /// Bytes taken.
    const SIZE: usize;
    /// Reads it; `bytes` has `SIZE` bytes.
    fn get(bytes: &[u8]) -> Self;
    /// Writes it; `bytes` has `SIZE` bytes.
    fn put(&self, bytes: &mut [u8]);
}

macro_rules! integer {
    ($($ty:ty),*) => { $(
        impl Field for $ty {
            const SIZE: usize = size_of::<$ty>();
            fn get(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("SIZE bytes"))
            }
            fn put(&self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }
        }
    )* };
}
integer!(u8, u16, u32, u64);

impl<T: Field + Copy + Default, const N: usize> Field for [T; N] {
    const SIZE: usize = T::SIZE * N;
    fn get(bytes: &[u8]) -> Self {
        let mut items = [T::default(); N];
        for (item, bytes) in items.iter_mut().zip(bytes.chunks_exact(T::SIZE)) {
            *item = T::get(bytes);
        }
        items
    }
    fn put(&self, bytes: &mut [u8]) {
        for (item, bytes) in self.iter().zip(bytes.chunks_exact_mut(T::SIZE)) {
            item.put(bytes);
        }
    }
}

/// The field at `offset`.
pub(crate) fn get<T: Field>(bytes: &[u8], offset: usize) -> T {
    T::get(&bytes[offset..offset + T::SIZE])
}

/// Sets the field at `offset`.
pub(crate) fn put<T: Field>(bytes: &mut [u8], offset: usize, value: T) {
    value.put(&mut bytes[offset..offset + T::SIZE]);
}
