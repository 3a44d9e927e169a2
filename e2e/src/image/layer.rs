//! One layer of an image: a compressed tar whose bytes depend on nothing but what is in it.

use std::io::Write;

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use super::blob::{Blob, digest};

/// A file of an image.
pub struct File {
    /// Without a leading slash.
    pub path: String,
    pub mode: u32,
    pub data: Vec<u8>,
}

pub struct Layer {
    pub blob: Blob,
    /// Hash of the tar before it was compressed.
    pub diff_id: String,
}

/// Packs files, each with the folders above it; everything belongs to root and was changed at `time`.
pub fn pack(files: &[File], time: u64) -> Result<Layer> {
    let mut tar = Builder::new(Vec::new());
    let mut folders: Vec<&str> = Vec::new();
    for file in files {
        for (end, _) in file.path.match_indices('/') {
            let (folder, _) = file.path.split_at(end + 1);
            if !folders.contains(&folder) {
                folders.push(folder);
                append(&mut tar, folder, EntryType::Directory, 0o755, time, &[])?;
            }
        }
        append(&mut tar, &file.path, EntryType::Regular, file.mode, time, &file.data)?;
    }
    let bytes = tar.into_inner()?;
    // Neither a name nor a time in the head of the gzip stream.
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(&bytes)?;
    Ok(Layer {
        blob: Blob::new(gzip.finish()?),
        diff_id: digest(&bytes),
    })
}

pub fn append(
    tar: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    time: u64,
    data: &[u8],
) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(time);
    header.set_size(u64::try_from(data.len())?);
    Ok(tar.append_data(&mut header, path, data)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> [File; 2] {
        let file = |path: &str, data: &[u8]| File {
            path: path.to_owned(),
            mode: 0o755,
            data: data.to_vec(),
        };
        [file("etc/ssl/bundle", b"roots"), file("program", b"code")]
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let (one, two) = (pack(&files(), 7).unwrap(), pack(&files(), 7).unwrap());
        assert_eq!(one.blob.digest, two.blob.digest);
        let mut other = files();
        other[1].data = b"c0de".to_vec();
        assert_ne!(pack(&other, 7).unwrap().blob.digest, one.blob.digest);
    }

    #[test]
    fn each_folder_stands_before_its_files_and_once() {
        let layer = pack(&files(), 7).unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(layer.blob.data.as_slice()));
        let names: Vec<String> = tar
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["etc/", "etc/ssl/", "etc/ssl/bundle", "program"]);
    }
}
