#!/usr/bin/perl
# weft lab exec [--name LAB] HOST CMD...: runs CMD inside a simulated host, everything after HOST unchanged.
#
# stdin, stdout, stderr, the terminal, the environment and the working directory are the caller's. Exit status is CMD's, 128+n
# if it was killed; 125 when HOST is unknown or down, 126/127 when CMD cannot be run or found.
# In Perl for its start time: the lab's tests run this thousands of times, often 20 at once.
use strict;
use warnings;
use POSIX ();

my $root = '/run/weft-lab';
# Not in POSIX.pm: setns(2), prctl(2) by machine (asm/unistd.h).
my %numbers = (x86_64 => [308, 157], aarch64 => [268, 167], riscv64 => [268, 167]);
my $lab = defined $ENV{WEFT_LAB} && $ENV{WEFT_LAB} ne '' ? $ENV{WEFT_LAB} : 'weft';

sub fail {
  my ($status, $message) = @_;
  print STDERR "weft lab exec: $message\n";
  POSIX::_exit($status);
}

while (@ARGV && $ARGV[0] =~ /^-/) {
  my $option = shift @ARGV;
  if ($option eq '--name' && @ARGV) { $lab = shift @ARGV }
  elsif ($option =~ /^--name=(.*)$/) { $lab = $1 }
  elsif ($option eq '--help' || $option eq '-h') {
    print "Usage: weft lab exec [--name LAB] HOST CMD...\n\nRuns CMD inside a host of the lab. Everything after HOST is CMD's.\n";
    exit 0;
  }
  elsif ($option eq '--') { last }
  else { fail(2, "unknown option $option; options of CMD go after HOST.") }
}
fail(2, 'usage: weft lab exec [--name LAB] HOST CMD...') if @ARGV < 2;
my ($host, @command) = @ARGV;

sub anchor_pid {
  my ($name) = @_;
  return undef if $name !~ /^h\d+$/;
  open(my $file, '<', "$root/$lab/$name/anchor.pid") or return undef;
  my $pid = <$file>;
  return undef unless defined $pid && $pid =~ /^(\d+)$/;
  $pid = $1;
  # A pid may have been given to another process meanwhile.
  open(my $cmdline, '<', "/proc/$pid/cmdline") or return undef;
  local $/;
  my $words = <$cmdline> // '';
  $words =~ s/\0.*//s;
  return $words eq "weft-lab-anchor $lab $name" ? $pid : undef;
}

my $pid = anchor_pid($host);
unless (defined $pid) {
  my @up = map { m{/(h\d+)/anchor\.pid$} && defined anchor_pid($1) ? $1 : () } glob("$root/$lab/h*/anchor.pid");
  @up = sort { substr($a, 1) <=> substr($b, 1) } @up;
  my $hosts = @up ? 'Hosts that are up: ' . join(' ', @up) . '.' : 'No host is up.';
  fail(125, "host “$host” of the lab “$lab” is unknown or down. $hosts");
}
fail(125, 'entering a host needs root.') if $> != 0;
my $number = $numbers{ (POSIX::uname())[4] } or fail(125, 'this processor architecture is not supported.');
my ($setns, $prctl) = @$number;
my $cwd = POSIX::getcwd() // '/';
my @namespaces = map {
  open(my $file, '<', "/proc/$pid/ns/$_") or fail(125, "host “$host” went down: $!.");
  $file;
} 'net', 'uts', 'mnt';

# Signals wait until child and handlers are in place, so that none is lost between.
my @forwarded = grep { ($SIG{$_} // '') ne 'IGNORE' } qw(HUP INT QUIT TERM USR1 USR2 WINCH ALRM);
my $held = POSIX::SigSet->new(map { POSIX->can("SIG$_") ? POSIX->can("SIG$_")->() : () } @forwarded);
my $before = POSIX::SigSet->new;
POSIX::sigprocmask(POSIX::SIG_BLOCK(), $held, $before);
my $parent = $$;
my $child = fork;
fail(125, "fork: $!.") unless defined $child;

unless ($child) {
  # Killed with SIGKILL we can pass on nothing: the kernel does it (PR_SET_PDEATHSIG).
  syscall($prctl, 1, 9, 0, 0, 0);
  POSIX::_exit(125) if getppid() != $parent;
  for my $namespace (@namespaces) {
    syscall($setns, fileno($namespace), 0) == 0 or fail(125, "host “$host” cannot be entered: $!.");
  }
  chdir $cwd or chdir '/';
  $ENV{DOCKER_HOST} = 'unix:///run/docker.sock';
  delete @ENV{qw(DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH)};
  POSIX::sigprocmask(POSIX::SIG_SETMASK(), $before);
  no warnings 'exec';
  exec { $command[0] } @command;
  fail($!{ENOENT} ? 127 : 126, "$command[0]: $!");
}

for my $name (@forwarded) {
  my $signal = POSIX->can("SIG$name") ? POSIX->can("SIG$name")->() : 28;
  my $forward = sub {
    my (undef, $info) = @_;
    # From the terminal (SI_KERNEL) it has reached CMD too, which is in our process group.
    kill $name, $child unless ref $info && ($info->{code} // 0) == 0x80;
  };
  POSIX::sigaction($signal, POSIX::SigAction->new($forward, POSIX::SigSet->new, POSIX::SA_SIGINFO() | POSIX::SA_RESTART()));
}
POSIX::sigprocmask(POSIX::SIG_SETMASK(), $before);
close $_ for @namespaces;
while (waitpid($child, 0) != $child) { POSIX::_exit(125) unless $!{EINTR} }
my $status = $?;
POSIX::_exit(POSIX::WIFSIGNALED($status) ? 128 + POSIX::WTERMSIG($status) : POSIX::WEXITSTATUS($status));
