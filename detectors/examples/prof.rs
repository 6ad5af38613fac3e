#![allow(clippy::all, unsafe_code)]
use detectors::{KnownSecret, Location, Scanner};
use fixtures::evasions::Random;
use fixtures::fresh::{TOKEN_KINDS, password};
use std::time::Instant;

fn one(number: usize, random: &mut Random) -> String {
    match number % 5 {
        0 => password(random),
        1 => random.alphanumeric(40),
        2 => random.text(b"0123456789abcdef", 64),
        3 => [8, 4, 4, 4, 12]
            .map(|l| random.text(b"0123456789abcdef", l))
            .join("-"),
        _ => TOKEN_KINDS[number / 5 % TOKEN_KINDS.len()].fresh(random),
    }
}
#[repr(C)]
struct Ts {
    s: i64,
    n: i64,
}
unsafe extern "C" {
    fn clock_gettime(id: i32, t: *mut Ts) -> i32;
}
fn cpu() -> f64 {
    let mut t = Ts { s: 0, n: 0 };
    unsafe { clock_gettime(3, &mut t) };
    t.s as f64 + t.n as f64 / 1e9
}
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut n_secrets = 50;
    let mut tokens = true;
    let mut mb = 8usize;
    let mut secs = 1.0;
    let mut paths = vec![];
    let mut it = args.into_iter();
    while let Some(a) = it.next() {
        match a.as_str() {
            "-s" => n_secrets = it.next().unwrap().parse().unwrap(),
            "-n" => tokens = false,
            "-m" => mb = it.next().unwrap().parse().unwrap(),
            "-t" => secs = it.next().unwrap().parse().unwrap(),
            _ => paths.push(a),
        }
    }
    let mut random = Random::new(1);
    let values: Vec<String> = (0..n_secrets).map(|i| one(i, &mut random)).collect();
    let secrets = values
        .iter()
        .map(|v| KnownSecret::new("X", v.as_bytes()).unwrap())
        .collect();
    let t = Instant::now();
    let scanner = Scanner::builder()
        .token_patterns(tokens)
        .known_secrets(secrets)
        .build()
        .unwrap();
    println!("build {:?}", t.elapsed());
    let (mut bytes_all, mut time_all) = (0.0, 0.0);
    for path in paths {
        let mut input = vec![];
        let meta = std::fs::metadata(&path).unwrap();
        if meta.is_dir() {
            let mut files: Vec<_> = std::fs::read_dir(&path)
                .unwrap()
                .map(|e| e.unwrap().path())
                .collect();
            files.sort();
            let step = (files.len() / 200).max(1);
            'o: for first in 0..step {
                for f in files.iter().skip(first).step_by(step) {
                    input.extend(std::fs::read(f).unwrap());
                    if input.len() >= mb << 20 {
                        break 'o;
                    }
                }
            }
            input.truncate(mb << 20);
        } else {
            input = std::fs::read(&path).unwrap();
            input.truncate(mb << 20);
        }
        let steps = scanner.steps(&input);
        let mut best = f64::MAX;
        let t0 = Instant::now();
        let mut found = 0;
        while t0.elapsed().as_secs_f64() < secs || best == f64::MAX {
            let c = cpu();
            let w = Instant::now();
            found = scanner.scan(&Location::Body, &input).len();
            let _ = w;
            best = best.min(cpu() - c);
        }
        bytes_all += input.len() as f64;
        time_all += best;
        println!(
            "{:28} {:6.1} MB  {:.3} GB/s  steps {:.2}x  findings {}",
            path.rsplit('/').next().unwrap(),
            input.len() as f64 / 1e6,
            input.len() as f64 / best / 1e9,
            steps as f64 / input.len() as f64,
            found
        );
    }
    println!("ALL {:.3} GB/s", bytes_all / time_all / 1e9);
}
