;; Multiplies elements by factors in place and rounds to nearest even, 4 or 8 at a time. The bytes in scale-wasm.ts are
;; this file, assembled; test/ir/disk-scale.test.ts compares them (ONNX_FUSE_ACCEPT=1 writes them anew).
;;
;; Element $i lies at $at + its bytes times $i, its f32 factor at 65536 + 4 * $i, or where $mask is 0 and not -1 one factor for all lies at 65536,
;; eight times. A function does the elements from $i up to $n and returns
;; how far it got: it stops before a group in which a value is or becomes infinite or NaN. The caller does that group in f64 and
;; calls again. Up to the end of the last group, elements behind the last are read and written: there has to be room.
(module
  (import "scale" "memory" (memory 2))

  ;; p, the product x * g rounded to f32, with its last bit moved towards the product itself in those lanes of $tie in which
  ;; they differ: then rounding p is rounding the product. The product is exact in f64: 24 times 24 bits.
  (func $nudge (param $x v128) (param $g v128) (param $p v128) (param $tie v128) (result v128)
    (local $low v128) (local $high v128) (local $rounded v128)
    (local.set $low (f64x2.abs (f64x2.mul
      (f64x2.promote_low_f32x4 (local.get $x))
      (f64x2.promote_low_f32x4 (local.get $g)))))
    (local.set $high (f64x2.abs (f64x2.mul
      (f64x2.promote_low_f32x4 (call $high (local.get $x)))
      (f64x2.promote_low_f32x4 (call $high (local.get $g))))))
    (local.set $rounded (f32x4.abs (local.get $p)))
    (i32x4.add (local.get $p) (v128.and (local.get $tie)
      (i32x4.sub
        (i8x16.shuffle 0 1 2 3 8 9 10 11 16 17 18 19 24 25 26 27
          (f64x2.lt (local.get $low) (f64x2.promote_low_f32x4 (local.get $rounded)))
          (f64x2.lt (local.get $high) (f64x2.promote_low_f32x4 (call $high (local.get $rounded)))))
        (i8x16.shuffle 0 1 2 3 8 9 10 11 16 17 18 19 24 25 26 27
          (f64x2.gt (local.get $low) (f64x2.promote_low_f32x4 (local.get $rounded)))
          (f64x2.gt (local.get $high) (f64x2.promote_low_f32x4 (call $high (local.get $rounded)))))))))

  (func $high (param $x v128) (result v128)
    (i8x16.shuffle 8 9 10 11 12 13 14 15 8 9 10 11 12 13 14 15 (local.get $x) (local.get $x)))

  (func (export "float") (param $i i32) (param $n i32) (param $at i32) (param $mask i32) (result i32)
    (local $p v128) (local $inf v128)
    (local.set $inf (i32x4.splat (i32.const 0x7f800000)))
    (block $stop
      (loop $next
        (br_if $stop (i32.ge_u (local.get $i) (local.get $n)))
        (local.set $p (f32x4.mul
          (v128.load (i32.add (local.get $at) (i32.shl (local.get $i) (i32.const 2))))
          (v128.load offset=65536 (i32.and (i32.shl (local.get $i) (i32.const 2)) (local.get $mask)))))
        (br_if $stop (v128.any_true (i32x4.eq (v128.and (local.get $p) (local.get $inf)) (local.get $inf))))
        (v128.store (i32.add (local.get $at) (i32.shl (local.get $i) (i32.const 2))) (local.get $p))
        (local.set $i (i32.add (local.get $i) (i32.const 4)))
        (br $next)))
    (local.get $i))

  ;; A bfloat16 is the upper half of an f32.
  (func (export "bfloat16") (param $i i32) (param $n i32) (param $at i32) (param $mask i32) (result i32)
    (local $x v128) (local $y v128) (local $p v128) (local $q v128)
    (local $inf v128) (local $below v128) (local $one v128) (local $tie v128) (local $t v128) (local $u v128)
    ;; from here on it is rounded to infinity
    (local.set $inf (i32x4.splat (i32.const 0x7f7f8000)))
    (local.set $below (i32x4.splat (i32.const 0x7fff)))
    (local.set $one (i32x4.splat (i32.const 1)))
    (local.set $tie (i32x4.splat (i32.const 0x80000000)))
    (block $stop
      (loop $next
        (br_if $stop (i32.ge_u (local.get $i) (local.get $n)))
        (local.set $x (v128.load (i32.add (local.get $at) (i32.shl (local.get $i) (i32.const 1)))))
        (local.set $y (i32x4.shl (i32x4.extend_high_i16x8_u (local.get $x)) (i32.const 16)))
        (local.set $x (i32x4.shl (i32x4.extend_low_i16x8_u (local.get $x)) (i32.const 16)))
        (local.set $p (f32x4.mul (local.get $x) (v128.load offset=65536 (i32.and (i32.shl (local.get $i) (i32.const 2)) (local.get $mask)))))
        (local.set $q (f32x4.mul (local.get $y) (v128.load offset=65552 (i32.and (i32.shl (local.get $i) (i32.const 2)) (local.get $mask)))))
        (br_if $stop (v128.any_true (v128.or
          (i32x4.ge_s (f32x4.abs (local.get $p)) (local.get $inf))
          (i32x4.ge_s (f32x4.abs (local.get $q)) (local.get $inf)))))
        (local.set $t (i32x4.eq (i32x4.shl (local.get $p) (i32.const 16)) (local.get $tie)))
        (local.set $u (i32x4.eq (i32x4.shl (local.get $q) (i32.const 16)) (local.get $tie)))
        (if (v128.any_true (v128.or (local.get $t) (local.get $u))) (then
          ;; half-way between two
          (local.set $p (call $nudge
            (local.get $x) (v128.load offset=65536 (i32.and (i32.shl (local.get $i) (i32.const 2)) (local.get $mask))) (local.get $p) (local.get $t)))
          (local.set $q (call $nudge
            (local.get $y) (v128.load offset=65552 (i32.and (i32.shl (local.get $i) (i32.const 2)) (local.get $mask))) (local.get $q) (local.get $u)))))
        (v128.store (i32.add (local.get $at) (i32.shl (local.get $i) (i32.const 1)))
          (i8x16.shuffle 2 3 6 7 10 11 14 15 18 19 22 23 26 27 30 31
            (i32x4.add (local.get $p) (i32x4.add (local.get $below)
              (v128.and (i32x4.shr_u (local.get $p) (i32.const 16)) (local.get $one))))
            (i32x4.add (local.get $q) (i32x4.add (local.get $below)
              (v128.and (i32x4.shr_u (local.get $q) (i32.const 16)) (local.get $one))))))
        (local.set $i (i32.add (local.get $i) (i32.const 8)))
        (br $next)))
    (local.get $i))

  ;; The float16 bits of x * g, which is p in f32, one per lane; results may be subnormal. -1 where it is too large.
  (func $half (param $x v128) (param $g v128) (param $p v128) (result v128)
    (local $a v128) (local $t v128) (local $small v128)
    (local.set $a (f32x4.abs (local.get $p)))
    (local.set $small (i32x4.lt_s (local.get $a) (i32x4.splat (i32.const 0x38800000))))
    ;; Beside 0.5 an f32 has the steps of a subnormal float16, so that this addition rounds.
    (local.set $t (f32x4.add (local.get $a) (f32x4.splat (f32.const 0.5))))
    (local.set $a (call $nudge (local.get $x) (local.get $g) (local.get $a)
      (v128.bitselect
        (f32x4.eq
          (f32x4.abs (f32x4.sub (f32x4.sub (local.get $t) (f32x4.splat (f32.const 0.5))) (local.get $a)))
          (f32x4.splat (f32.const 0x1p-25)))
        (i32x4.eq (i32x4.shl (local.get $a) (i32.const 19)) (i32x4.splat (i32.const 0x80000000)))
        (local.get $small))))
    (local.set $t (f32x4.add (local.get $a) (f32x4.splat (f32.const 0.5))))
    (v128.or
      ;; 65520 and above is infinite
      (i32x4.ge_s (local.get $a) (i32x4.splat (i32.const 0x477ff000)))
      (v128.or
        (v128.and (i32x4.shr_u (local.get $p) (i32.const 16)) (i32x4.splat (i32.const 0x8000)))
        (v128.bitselect
          (i32x4.sub (local.get $t) (i32x4.splat (i32.const 0x3f000000)))
          (i32x4.shr_u
            (i32x4.add
              (i32x4.sub (local.get $a) (i32x4.splat (i32.const 0x37fff001)))
              (v128.and (i32x4.shr_u (local.get $a) (i32.const 13)) (i32x4.splat (i32.const 1))))
            (i32.const 13))
          (local.get $small)))))

  ;; The bits of a float16, moved to where an f32 has them, mean 2^-112 of its value: factors come times 2^112.
  (func (export "float16") (param $i i32) (param $n i32) (param $at i32) (param $mask i32) (result i32)
    (local $h v128) (local $x v128) (local $y v128) (local $p v128) (local $q v128)
    (local $a v128) (local $b v128)
    (local $bits v128) (local $least v128) (local $range v128) (local $tie v128) (local $carry v128) (local $inf v128)
    (local.set $bits (i32x4.splat (i32.const 0x8fffe000)))
    (local.set $least (i32x4.splat (i32.const 0x38800000)))
    (local.set $range (i32x4.splat (i32.const 0x0effefff)))
    (local.set $tie (i32x4.splat (i32.const 0x80000000)))
    (local.set $carry (i32x4.splat (i32.const 0x00801000)))
    (local.set $inf (i16x8.splat (i32.const 0x7c00)))
    (block $stop
      (loop $next
        (br_if $stop (i32.ge_u (local.get $i) (local.get $n)))
        (local.set $h (v128.load (i32.add (local.get $at) (i32.shl (local.get $i) (i32.const 1)))))
        (local.set $x (v128.and
          (i32x4.shl (i32x4.extend_low_i16x8_s (local.get $h)) (i32.const 13)) (local.get $bits)))
        (local.set $y (v128.and
          (i32x4.shl (i32x4.extend_high_i16x8_s (local.get $h)) (i32.const 13)) (local.get $bits)))
        (local.set $p (f32x4.mul (local.get $x) (v128.load offset=65536 (i32.and (i32.shl (local.get $i) (i32.const 2)) (local.get $mask)))))
        (local.set $q (f32x4.mul (local.get $y) (v128.load offset=65552 (i32.and (i32.shl (local.get $i) (i32.const 2)) (local.get $mask)))))
        (br_if $stop (v128.any_true (i16x8.eq (v128.and (local.get $h) (local.get $inf)) (local.get $inf))))
        (local.set $a (i32x4.sub (f32x4.abs (local.get $p)) (local.get $least)))
        (local.set $b (i32x4.sub (f32x4.abs (local.get $q)) (local.get $least)))
        (if
          (v128.any_true (v128.or
            (v128.or (i32x4.gt_u (local.get $a) (local.get $range)) (i32x4.gt_u (local.get $b) (local.get $range)))
            (v128.or
              (i32x4.eq (i32x4.shl (local.get $p) (i32.const 19)) (local.get $tie))
              (i32x4.eq (i32x4.shl (local.get $q) (i32.const 19)) (local.get $tie)))))
          (then
            (local.set $a (call $half
              (local.get $x) (v128.load offset=65536 (i32.and (i32.shl (local.get $i) (i32.const 2)) (local.get $mask))) (local.get $p)))
            (local.set $b (call $half
              (local.get $y) (v128.load offset=65552 (i32.and (i32.shl (local.get $i) (i32.const 2)) (local.get $mask))) (local.get $q)))
            (br_if $stop (v128.any_true (i32x4.lt_s
              (v128.or (local.get $a) (local.get $b)) (i32x4.splat (i32.const 0)))))
            (v128.store (i32.add (local.get $at) (i32.shl (local.get $i) (i32.const 1)))
              (i8x16.shuffle 0 1 4 5 8 9 12 13 16 17 20 21 24 25 28 29 (local.get $a) (local.get $b))))
          (else
            ;; Normal and not half-way: add half a step and cut off.
            (v128.store (i32.add (local.get $at) (i32.shl (local.get $i) (i32.const 1))) (v128.or
              (v128.and
                (i8x16.shuffle 2 3 6 7 10 11 14 15 18 19 22 23 26 27 30 31 (local.get $p) (local.get $q))
                (i16x8.splat (i32.const 0x8000)))
              (i8x16.shuffle 0 1 4 5 8 9 12 13 16 17 20 21 24 25 28 29
                (i32x4.shr_u (i32x4.add (local.get $a) (local.get $carry)) (i32.const 13))
                (i32x4.shr_u (i32x4.add (local.get $b) (local.get $carry)) (i32.const 13)))))))
        (local.set $i (i32.add (local.get $i) (i32.const 8)))
        (br $next)))
    (local.get $i))
)
