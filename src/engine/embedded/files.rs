//! The file layer: the few calls the engine makes of a disk, and the real disk behind them.
//!
//! Nothing else in the engine touches a file, so that a test can lose, tear or refuse writes.
//! A write is durable once `sync` has answered, a new or removed name once `sync_dir` has.

use std::any::Any;
use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// A disk.
pub trait Files: Send + Sync + Debug + 'static {
    /// One level; no error if it is there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Names and sizes of the files in `dir`, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>>;
    /// For reading and writing; must be there.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// The same; made empty if it is not there.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// `None`: another process has it. Held until the answer is dropped.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>>;
    /// Bytes that can still be written.
    fn free(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file.
pub trait File: Send + Sync + Debug + 'static {
    fn size(&self) -> io::Result<u64>;
    /// All of `out`, or an error.
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()>;
    fn write_at(&self, at: u64, data: &[u8]) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Takes the space for `len` bytes now.
    fn allocate(&self, len: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

/// The real disk.
#[derive(Debug, Default)]
pub struct Disk;

#[derive(Debug)]
struct Real(fs::File);

impl Files for Disk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        match fs::create_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            other => other,
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            found.push((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len()));
        }
        Ok(found)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(Real(fs::OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Arc::new(Real(file)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }

    fn free(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl File for Real {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, at)
    }

    fn write_at(&self, at: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, at)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, len)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
