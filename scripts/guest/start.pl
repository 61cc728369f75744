#!/usr/bin/perl
# Runs the guest's kernel in a PID namespace of its own, with which all its processes end, and dies with its parent, as the kernel
# dies with it (prctl(2), PR_SET_PDEATHSIG). unshare(1) --kill-child would do, but for the moment between its fork and its prctl.
#
#   start.pl PARENT PROGRAM [ARGUMENT...]     PARENT: pid of who starts this
use strict;
use warnings;

# By their numbers on x86-64, the only machine that Debian has User-Mode Linux for.
my ($PRCTL, $UNSHARE) = (157, 272);
my ($PR_SET_PDEATHSIG, $SIGKILL, $CLONE_NEWPID) = (1, 9, 0x20000000);

my ($parent, @kernel) = @ARGV;

sub die_with_parent {
  syscall($PRCTL, $PR_SET_PDEATHSIG, $SIGKILL, 0, 0, 0) == 0 or die "prctl: $!\n";
}

die_with_parent();
exit 1 if getppid() != $parent;
syscall($UNSHARE, $CLONE_NEWPID) == 0 or die "unshare: $!\n";
# The child starts the kernel only if it has heard from us after its prctl.
pipe(my $question, my $ask) or die "pipe: $!\n";
pipe(my $answer, my $tell) or die "pipe: $!\n";
my $child = fork // die "fork: $!\n";
if ($child == 0) {
  close $question;
  close $tell;
  die_with_parent();
  syswrite $ask, '?';
  exit 1 unless sysread $answer, my $byte, 1;
  exec { $kernel[0] } @kernel or die "$kernel[0]: $!\n";
}
close $ask;
close $answer;
syswrite $tell, '!' if sysread $question, my $byte, 1;
waitpid $child, 0;
exit($? == 0 ? 0 : 1);
