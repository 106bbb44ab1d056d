-- Most ids are known now.
analyze wanted;
