//! Content that is named by its hash.

use sha2::{Digest, Sha256};

pub struct Blob {
    pub data: Vec<u8>,
    /// Such as `sha256:9f86…`.
    pub digest: String,
}

impl Blob {
    pub fn new(data: Vec<u8>) -> Self {
        Self {
            digest: digest(&data),
            data,
        }
    }

    /// Where it lies in an image layout.
    pub fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }
}

pub fn digest(data: &[u8]) -> String {
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&Sha256::digest(data)))
}
