//! Packed images as the tools of the trade write them: what comes out is what went in, or an error that says why not.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use piboot::image::{Source, SourceError};

/// Something like an image: a first sector with a signature, text, noise and zeros.
fn sample(seed: u64) -> Vec<u8> {
    let mut data = vec![0; 512];
    data[510..].copy_from_slice(&[0x55, 0xaa]);
    let mut state = seed | 1;
    for n in 0..40_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match n / 10_000 {
            0 => data.extend(state.to_le_bytes()),
            1 => data.extend(format!("line {n}\n").bytes()),
            2 => data.extend([0; 16]),
            _ => data.extend((state % 5).to_le_bytes()),
        }
    }
    data
}

/// What comes out of packed bytes, and how much of them was read.
fn unpack(packed: &[u8]) -> Result<Vec<u8>, SourceError> {
    let source = Source::from_reader(Box::new(Cursor::new(packed.to_vec())), None, "x.img".into())?;
    let mut stream = source.into_stream()?;
    let mut out = Vec::new();
    let mut buffer = vec![0; 70_001];
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            length => out.extend_from_slice(&buffer[..length]),
        }
    }
    assert_eq!(stream.consumed(), packed.len() as u64, "the digest is of the whole file");
    Ok(out)
}

fn refusal(packed: &[u8]) -> String {
    unpack(packed).unwrap_err().to_string()
}

/// What a command makes of `input`.
fn pipe(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

fn gzip(options: &[&str], data: &[u8]) -> Vec<u8> {
    pipe(Command::new("gzip").arg("-c").args(options), data)
}

fn zstd(options: &[&str], data: &[u8]) -> Vec<u8> {
    pipe(Command::new("zstd").args(["-q", "-c"]).args(options), data)
}

fn xz(options: &[&str], data: &[u8]) -> Vec<u8> {
    pipe(Command::new("xz").args(["-c", "-T1"]).args(options), data)
}

/// A zip of files in the order given, as Info-ZIP makes it.
fn zip(options: &[&str], files: &[(&str, &[u8])]) -> Vec<u8> {
    let place = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::create_dir_all(place.path().join(name).parent().unwrap()).unwrap();
        fs::write(place.path().join(name), content).unwrap();
    }
    let names = files.iter().map(|(name, _)| name);
    let mut command = Command::new("zip");
    command.current_dir(place.path()).arg("-q").args(options).arg("out.zip").args(names);
    assert!(command.status().unwrap().success(), "{command:?}");
    fs::read(place.path().join("out.zip")).unwrap()
}

/// The same written to where nobody can go back: sizes follow the content.
fn zip_stream(options: &[&str], data: &[u8]) -> Vec<u8> {
    pipe(Command::new("zip").arg("-q").args(options).args(["-", "-"]), data)
}

#[test]
fn what_tools_pack_is_unpacked() {
    let data = sample(1);
    let (first, second) = data.split_at(100_003);
    let skippable = b"\x5a\x2a\x4d\x18\x05\0\0\0hello";
    let readme: (&str, &[u8]) = ("README.txt", b"read me");
    let image: (&str, &[u8]) = ("os/image.img", &data);
    let sum: (&str, &[u8]) = ("image.img.sha256", &[b'0'; 700]);
    let noise = sample(2)[600..300_000].to_vec();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("gzip", gzip(&[], &data)),
        ("gzip members", [gzip(&["-1"], first), gzip(&["-9"], second)].concat()),
        ("gzip of nothing between", [gzip(&[], first), gzip(&[], b""), gzip(&[], second)].concat()),
        ("gzip padded", [gzip(&["-n"], &data), vec![0; 1000]].concat()),
        ("zstd", zstd(&["-3"], &data)),
        ("zstd without checksum", zstd(&["--no-check", "-19"], &data)),
        ("zstd frames", [&skippable[..], &zstd(&[], first), skippable, &zstd(&["-1"], second), skippable].concat()),
        ("zstd of known size", {
            let place = tempfile::tempdir().unwrap();
            fs::write(place.path().join("x"), &data).unwrap();
            pipe(Command::new("zstd").args(["-q", "-c"]).arg(place.path().join("x")), b"")
        }),
        ("xz", xz(&["-6"], &data)),
        ("zip", zip(&[], &[image])),
        ("zip stored", zip(&["-0"], &[readme, image, sum])),
        ("zip with others", zip(&["-D"], &[readme, ("noise", &noise), image, sum])),
        ("zip of a directory", zip(&["-r"], &[("os", b"")].map(|_| image))),
        ("zip stream", zip_stream(&[], &data)),
        ("zip64", zip(&["-fz"], &[readme, image, sum])),
        ("zip64 stream", zip_stream(&["-fz"], &data)),
        ("zip32 stream", zip_stream(&["-fz-"], &data)),
        ("zip with a comment", {
            let mut bytes = zip(&[], &[image]);
            let at = bytes.len() - 2;
            bytes[at] = 7;
            bytes.extend(b"comment");
            bytes
        }),
    ];
    for (name, packed) in cases {
        let out = unpack(&packed).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(out == data, "{name}: {} bytes of {}", out.len(), data.len());
    }
}

#[test]
fn gzip_headers_may_hold_every_field() {
    let data = sample(1);
    let plain = gzip(&["-n"], &data);
    let mut header = plain[..10].to_vec();
    header[3] = 0b1_1111;
    let fields = b"\x03\x00abcname.img\0a comment\0\x12\x34";
    assert!(unpack(&[&header, &fields[..], &plain[10..]].concat()).unwrap() == data);
    header[3] = 0x80;
    assert!(refusal(&[&header, &plain[10..]].concat()).contains("unknown gzip method"));
}

#[test]
fn a_packed_image_that_breaks_off_is_said_to() {
    let data = sample(3);
    let readme: (&str, &[u8]) = ("README.txt", b"read me");
    for (name, packed) in [
        ("gzip", gzip(&[], &data)),
        ("zstd", zstd(&[], &data)),
        ("xz", xz(&[], &data)),
        ("zip", zip(&[], &[readme, ("x.img", &data)])),
        ("zip stored", zip(&["-0"], &[("x.img", &data), readme])),
        ("zip stream", zip_stream(&[], &data)),
        ("zip64", zip(&["-fz"], &[("x.img", &data)])),
    ] {
        let whole = packed.len();
        for length in [60, 700, whole / 3, whole / 2, whole - 100, whole - 21, whole - 9, whole - 3, whole - 1] {
            let error = unpack(&packed[..length]).map(|out| out.len()).unwrap_err();
            assert!(matches!(error, SourceError::Truncated(_)), "{name} at {length} of {whole}: {error}");
        }
    }
}

/// Whatever byte is wrong, nothing wrong comes out.
#[test]
fn damage_never_passes_for_an_image() {
    let data = sample(4);
    let readme: (&str, &[u8]) = ("README.txt", b"read me");
    for (name, packed) in [
        ("gzip", gzip(&["-n"], &data)),
        ("zstd", zstd(&["--check"], &data)),
        ("zip", zip(&[], &[readme, ("x.img", &data)])),
        ("zip stored", zip(&["-0"], &[readme, ("x.img", &data)])),
        ("zip stream", zip_stream(&[], &data)),
    ] {
        let step = (packed.len() / 150).max(1);
        let near = (0..120).chain(packed.len() - 60..packed.len());
        let mut refused = 0;
        for at in (0..packed.len()).step_by(step).chain(near) {
            for flip in [0x01, 0x80] {
                let mut damaged = packed.clone();
                damaged[at] ^= flip;
                match unpack(&damaged) {
                    Ok(out) => assert!(out == data, "{name}: byte {at} of {} changed the image", packed.len()),
                    Err(error) => {
                        assert!(!error.to_string().is_empty());
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused > 250, "{name}: {refused} refused");
    }
}

#[test]
fn what_follows_a_packed_image_must_be_one() {
    let data = sample(5);
    for packed in [gzip(&[], &data), zstd(&[], &data), xz(&[], &data)] {
        let error = refusal(&[packed, b"<html>404</html>".to_vec()].concat());
        assert!(error.contains("the compressed data is damaged"), "{error}");
    }
}

#[test]
fn windows_and_dictionaries_that_are_too_large_are_refused_with_both_numbers() {
    let data = sample(6);
    let error = refusal(&zstd(&["--long=27"], &data));
    assert!(error.contains("needs 128 MiB of memory and 16 MiB can be spared; pack it again with zstd -19"), "{error}");
    assert!(unpack(&zstd(&["--long=24"], &data)).unwrap() == data);
    let error = refusal(&xz(&["-9"], &data));
    assert!(error.contains("needs 65 MiB of memory and 48 MiB can be spared; pack it again with xz -6"), "{error}");
}

#[test]
fn archives_that_hold_something_else_say_what() {
    let (data, other) = (sample(7), sample(8));
    let image: (&str, &[u8]) = ("one.img", &data);
    let packed = xz(&["-0"], &data);
    let mut stored_stream = zip(&["-0"], &[image]);
    // The general purpose flag that says so.
    stored_stream[6] |= 8;
    for (archive, words) in [
        (zip(&[], &[image, ("two.img", &other)]), "several disk images (one.img, two.img)"),
        (zip(&[], &[("notes", b"x"), ("noobs.json", b"{}")]), "holds no disk image"),
        (zip(&[], &[("x.img.xz", &packed)]), "x.img.xz in the zip is itself packed"),
        (zip(&["-P", "secret"], &[image]), "encrypted (one.img)"),
        (zip(&["-Z", "bzip2"], &[image]), "one.img in the zip is packed with bzip2"),
        (stored_stream, "its end cannot be found"),
    ] {
        let error = refusal(&archive);
        assert!(error.contains(words), "{words}: {error}");
    }
    let bzip2 = Path::new("/bin/bzip2").exists().then(|| pipe(Command::new("bzip2").arg("-c"), &data));
    assert!(bzip2.is_none_or(|packed| refusal(&packed).contains("bzip2")));
    assert!(refusal(b"7z\xbc\xaf\x27\x1c").contains("7z"));
}

/// Takes a minute. A gzip trailer counts modulo 2^32, and zip has other records for what is larger.
#[test]
#[ignore = "takes a minute"]
fn more_than_four_gigabytes() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("large.img");
    let length = (4 << 30) + 12_345_678_u64;
    let mut file = File::create(&path).unwrap();
    file.write_all(&sample(9)).unwrap();
    file.set_len(length).unwrap();
    let packed = place.path().join("packed");
    for (name, command) in
        [("gzip", "gzip -1 -c large.img"), ("zip", "zip -q -1 - large.img"), ("zst", "zstd -q -c large.img")]
    {
        let mut shell = Command::new("sh");
        shell.current_dir(place.path()).args(["-c", command]).stdout(File::create(&packed).unwrap());
        assert!(shell.status().unwrap().success(), "{command}");
        let mut stream = Source::open(&packed).unwrap().into_stream().unwrap();
        let mut buffer = vec![0; 1 << 20];
        let mut total = 0;
        loop {
            match stream.read(&mut buffer).unwrap_or_else(|error| panic!("{name}: {error}")) {
                0 => break,
                got => total += got as u64,
            }
        }
        assert_eq!(total, length, "{name}");
    }
}
