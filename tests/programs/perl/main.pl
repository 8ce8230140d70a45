# Data structures, regular expressions, sorting, packing, formats, processes.
use strict;
use warnings;
use List::Util qw(sum max reduce first shuffle);
use POSIX qw(floor strftime fmod);
use Digest::MD5 qw(md5_hex);
use Digest::SHA qw(sha256_hex);
use Storable qw(freeze thaw dclone);
use Encode qw(encode decode);
use bigint ();

my $count = $ENV{COUNT} || 5000;
my %words;
my $state = 12345;
sub next_number { $state = ($state * 1103515245 + 12345) % 2147483648; return $state }
for (1 .. $count) {
    my $word = join '', map { chr(97 + next_number() % 6) } 1 .. 4;
    $words{$word}++;
}
my @top = (sort { $words{$b} <=> $words{$a} || $a cmp $b } keys %words)[0 .. 9];
printf "%-6s %4d\n", $_, $words{$_} for @top;
printf "sum %d, max %d, distinct %d\n", sum(values %words), max(values %words), scalar keys %words;

my $text = join ' ', map { "key$_=" . ($_ * 7 % 101) } 1 .. 200;
my %pairs = $text =~ /(\w+)=(\d+)/g;
print join(',', map { "$_:$pairs{$_}" } (sort keys %pairs)[0 .. 5]), "\n";
(my $swapped = $text) =~ s/(\w+)=(\d+)/$2-$1/g;
print substr($swapped, 0, 60), "\n";
print "balanced\n" if "(a(b)c)" =~ /^(\((?:[^()]++|(?1))*\))$/;
print join('|', split /\s*[,;]\s*/, "a , b;c ;  d"), "\n";
print join(' ', "2024-02-29" =~ /^(?<year>\d{4})-(?<month>\d\d)-(?<day>\d\d)$/), " $+{month}\n";
(my $rot = "Hello, World") =~ tr/A-Za-z/N-ZA-Mn-za-m/;
print "$rot\n";

print unpack('H*', pack('NnCvVa5d>', 0xdeadbeef, 0xcafe, 0x7f, 1, 2, 'abc', 3.14159)), "\n";
printf "%.10f %.6e %g %s\n", sqrt(2), exp(20), 1 / 3, 1e21;
printf "%.12f %.12f %.12f\n", sin(1), atan2(1, 2), fmod(10.5, 3);
print 9007199254740993, ' ', 2**53 + 1, ' ', 18446744073709551615, ' ', -7 % 3, ' ', int(-3.7), "\n";
print Math::BigInt->new(2)->bpow(200), "\n" if require Math::BigInt;
print md5_hex($text), ' ', sha256_hex($text), "\n";
print strftime('%Y-%m-%d %H:%M:%S', gmtime 1700000000), "\n";

my $copy = thaw freeze { list => [1 .. 5], deep => { a => [{}, 'x'] } };
print scalar(@{ $copy->{list} }), ' ', $copy->{deep}{a}[1], "\n";
my $bytes = encode 'UTF-8', "na\x{ef}ve \x{4e2d}\x{6587}";
print length($bytes), ' ', length(decode 'UTF-8', $bytes), "\n";

package Counter { sub new { my ($class, %o) = @_; bless {%o}, $class } sub up { $_[0]{n}++; $_[0] } sub DESTROY { print "gone\n" } }
{ my $counter = Counter->new(n => 1); $counter->up->up; print "counter $counter->{n}\n" }
my $result = eval { die { code => 42 } ; 1 };
print "caught $@->{code}\n" unless $result;
local $SIG{ALRM} = sub { die "alarm\n" };
eval { alarm 1; select undef, undef, undef, 10; alarm 0 };
print "interrupted by $@";

my $pid = fork // die;
if ($pid == 0) { exit 7 }
waitpid $pid, 0;
print 'child left ', $? >> 8, "\n";
open my $pipe, '-|', 'sort', '-r', $0 or die;
my @lines = <$pipe>;
close $pipe;
print 'sorted ', scalar @lines, " lines\n";
open my $out, '>', 'written.txt' or die;
print {$out} map { "$_\n" } sort { $a <=> $b } map { next_number() % 1000 } 1 .. 100;
close $out;
our ($name, $value) = ('total', sum(values %pairs));
format STDOUT =
@<<<<<<<<< @>>>>>>>
$name,     $value
.
write;
