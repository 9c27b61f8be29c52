#!/usr/bin/perl
# Makes of a translation (.po, one line a text) what LuCI reads: its texts, each padded to four bytes, then an index of
# hash of the original, number of plural forms, offset and length, sorted by hash, then the index's own offset.
#
#   openwrt/lmo.pl FILE.po >FILE.lmo
use strict;
use warnings;

# The "SuperFastHash" of LuCI, with the length as its start; bytes left over at the end count as signed.
sub sfh {
    my ($text) = @_;
    my $hash = length $text;
    my $word = sub { my ($at) = @_; unpack 'v', substr $text, $at, 2 };
    my $byte = sub { my ($at) = @_; unpack('c', substr $text, $at, 1) & 0xffffffff };
    my $whole = length($text) & ~3;

    for (my $at = 0; $at < $whole; $at += 4) {
        $hash = ($hash + $word->($at)) & 0xffffffff;
        my $mixed = (($word->($at + 2) << 11) ^ $hash) & 0xffffffff;
        $hash = (($hash << 16) ^ $mixed) & 0xffffffff;
        $hash = ($hash + ($hash >> 11)) & 0xffffffff;
    }
    my $left = length($text) - $whole;
    if ($left == 3) {
        $hash = ($hash + $word->($whole)) & 0xffffffff;
        $hash = ($hash ^ ($hash << 16)) & 0xffffffff;
        $hash = ($hash ^ ($byte->($whole + 2) << 18)) & 0xffffffff;
        $hash = ($hash + ($hash >> 11)) & 0xffffffff;
    } elsif ($left == 2) {
        $hash = ($hash + $word->($whole)) & 0xffffffff;
        $hash = ($hash ^ ($hash << 11)) & 0xffffffff;
        $hash = ($hash + ($hash >> 17)) & 0xffffffff;
    } elsif ($left == 1) {
        $hash = ($hash + $byte->($whole)) & 0xffffffff;
        $hash = ($hash ^ ($hash << 10)) & 0xffffffff;
        $hash = ($hash + ($hash >> 1)) & 0xffffffff;
    }
    for ([ 3, 5 ], [ 4, 17 ], [ 25, 6 ]) {
        $hash = ($hash ^ ($hash << $_->[0])) & 0xffffffff;
        $hash = ($hash + ($hash >> $_->[1])) & 0xffffffff;
    }
    return $hash;
}

sub text { my ($quoted) = @_; $quoted =~ s/\\(["\\])/$1/g; return $quoted }

binmode STDOUT;
my ($texts, @index, $original) = ('');
my $add = sub {
    my ($key, $forms, $text) = @_;
    push @index, [ $key, $forms, length $texts, length $text ];
    $texts .= $text . "\0" x (-length($text) % 4);
};
while (my $line = <>) {
    if ($line =~ /^"Plural-Forms: (.*)\\n"$/) {
        $add->(0, 0, $1);
    } elsif ($line =~ /^msgid "(.*)"$/) {
        $original = text($1);
    } elsif ($line =~ /^msgstr "(.+)"$/ && $original ne '') {
        my $translated = text($1);
        # What is the same in both languages is left out.
        $add->(sfh($original), 1, $translated) if sfh($original) != sfh($translated);
    }
}
print $texts, (map { pack 'N4', @$_ } sort { $a->[0] <=> $b->[0] } @index), pack('N', length $texts);
