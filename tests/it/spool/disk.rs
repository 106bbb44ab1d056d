//! Disks that are full, and directories in which nothing can be written.

use std::fs;

use super::*;

/// A small file system in memory; unmounted at the end.
struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// Absent, with a word why, where we may not mount.
    fn mount(options: &str) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "watcher-test"])
            .arg(directory.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { directory }),
            other => {
                println!("skipped: cannot mount a file system here ({other:?})");
                None
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("spool-0.db")
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.directory.path().join("other")).unwrap();
        while file.write_all(&[1; 4_096]).is_ok() {}
    }

    fn clear(&self) {
        fs::remove_file(self.directory.path().join("other")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let path = self.directory.path();
        drop(Command::new("umount").arg("-l").arg(path).status());
    }
}

#[tokio::test]
async fn a_full_disk_drops_the_oldest_or_hands_back_and_loses_nothing_in_silence() {
    let Some(disk) = SmallDisk::mount("size=6m") else {
        return;
    };
    let (spool, thread) = Spool::open(&disk.path(), options(64 * MIB)).unwrap();
    let mut dropped: Vec<Dropped> = Vec::new();
    let (mut refused, mut stored) = (Vec::new(), Vec::new());
    for n in 0..200 {
        match n {
            100 => disk.fill(),
            150 => disk.clear(),
            _ => {}
        }
        match spool.put(&batch(n, 1_000)).await {
            Ok(put) => {
                stored.push(n);
                dropped.extend(put.dropped);
            }
            Err(error) => {
                assert!(matches!(error, SpoolError::Disk { .. }), "{error}");
                refused.push(n);
            }
        }
    }
    assert!(stored.contains(&199), "it goes on once there is room");
    let rows: u64 = dropped.iter().map(|d| d.rows).sum();
    assert!(rows > 0 && spool.stats().dropped_rows == rows);
    println!("refused {}, dropped {}", refused.len(), rows / 1_000);
    let kept = drain(&spool).await;
    let gone = stored.len() - kept.len();
    assert_eq!(rows, gone as u64 * 1_000);
    assert_eq!(kept, stored[gone..]);
    close(spool, thread);
}

#[tokio::test]
async fn a_full_disk_can_be_drained() {
    let Some(disk) = SmallDisk::mount("size=6m") else {
        return;
    };
    let (spool, thread) = Spool::open(&disk.path(), options(8 * MIB)).unwrap();
    for n in 0..50 {
        spool.put(&batch(n, 1_000)).await.unwrap();
    }
    disk.fill();
    assert_eq!(drain(&spool).await, (0..50).collect::<Vec<_>>());
    close(spool, thread);
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let refused = |path: &Path| {
        let error = Spool::open(path, options(MIB)).unwrap_err();
        assert!(matches!(error, SpoolError::Directory { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains(path.parent().unwrap().to_str().unwrap()),
            "{text}"
        );
    };
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    refused(&file.join("spool.db"));
    // Nobody writes here, not even root.
    refused(Path::new("/proc/self/spool.db"));
    if let Some(disk) = SmallDisk::mount("size=1m,ro") {
        refused(&disk.path());
    }
}
